"""A running program as the grader sees it: its descriptors, its clock, its claims and its end."""

import contextlib
import json
import marshal
import os
import secrets
import select
import signal
import socket
import time
from collections import deque
from dataclasses import asdict

from mlx_ssd.grading.files import file_of
from mlx_ssd.grading.sandbox import Limits, Outcome
from mlx_ssd.grading.templates import START_SECONDS, Template

POLL_SECONDS = 0.05  # between looks at the memory, where the system cannot limit it


class Running:
    """A program forked from `template`. Used as a context: leaving it kills all that is left of it.

    job: {"code", "entry_point"} of functions or {"code"} of a script, which `stdin` is given to.
    """

    def __init__(self, template: Template, home: str, job: dict, limits: Limits, stdin: bytes | None = None):
        self._template, self._limits = template, limits
        self._cap = limits.output_kb * 1024
        self._nonce = secrets.token_hex(16).encode()
        self._lines: deque[dict] = deque()
        self._partial = bytearray()
        self._received = 0
        self._hello: dict = {}
        self._answer: bytes | None = None  # of the template, when the program has ended
        self._to_send, self._listens = bytearray(), True
        self.output = bytearray()
        self._poll = select.poll()
        with contextlib.ExitStack() as stack:
            with contextlib.ExitStack() as theirs:
                self._socket, other = socket.socketpair()
                stack.callback(self._socket.close)
                theirs.callback(other.close)
                self._socket.setblocking(False)
                self._output = -1
                if stdin is None:
                    given = printed = os.open(os.devnull, os.O_RDWR)
                else:
                    given = file_of(stdin)
                    self._output, printed = os.pipe()
                    stack.callback(os.close, self._output)
                    theirs.callback(os.close, printed)
                    self._poll.register(self._output, select.POLLIN)
                theirs.callback(os.close, given)
                template.begin(home, [given, printed, other.fileno()])
                stack.callback(self._kill)
            self._poll.register(template, select.POLLIN)
            self._poll.register(self._socket, select.POLLIN)
            self.send({**job, "nonce": self._nonce.decode(), "limits": asdict(limits)})
            self._stack = stack.pop_all()

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()

    def send(self, message: object) -> None:
        """What does not fit now goes out while we wait: a program need not read."""
        data = marshal.dumps(message)
        self._to_send += len(data).to_bytes(8, "little") + data
        self._send_more()

    def _send_more(self) -> None:
        if self._listens:
            try:
                del self._to_send[: self._socket.send(self._to_send)]
            except BlockingIOError:
                pass
            except OSError:  # it closed its end
                self._to_send.clear()
            self._poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._to_send else 0))

    def start(self) -> tuple[str, object]:
        """("started", None), or what happened instead."""
        event, payload = self.wait(time.monotonic() + START_SECONDS)
        if event == "line" and payload.get("step") == "hello":
            self._hello = payload
            return "started", None
        return event, payload

    @property
    def mechanisms(self) -> dict:
        return {key: value for key, value in self._hello.items() if key != "step"}

    def wait(self, deadline: float) -> tuple[str, object]:
        """What comes first: ("line", claim of the program), ("ended", (wait status, processor time)),
        ("ended", None) where even the template is gone, ("flood", None), ("memory", None), ("expired", None)."""
        watch_memory = self._hello and not self._hello["address_space"]
        self._received = 0
        while True:
            if self._lines:
                return "line", self._lines.popleft()
            if self._answer is not None:
                return "ended", self._end()
            left = deadline - time.monotonic()
            if left <= 0:
                return "expired", None
            ready = dict(self._poll.poll(1000 * (min(left, POLL_SECONDS) if watch_memory else left) + 1))
            if ready.get(self._socket.fileno(), 0) & select.POLLOUT:
                self._send_more()
            if self._template.fileno() in ready:
                self._answer = self._template.answer()
            if not self._read_ready(ready) or self._answer is not None and not self._read_rest():
                return "flood", None
            if watch_memory and _resident_mb(self._template.pid) > self._limits.memory_mb:
                return "memory", None

    def _read_ready(self, ready: dict[int, int]) -> bool:
        """Reads once from what the program wrote to; False when it wrote more than it may."""
        fits = True
        if ready.get(self._socket.fileno(), 0) & ~select.POLLOUT:
            fits = self._take_claims()
        if self._output in ready:
            data = os.read(self._output, 1 << 16)
            self.output += data
            if not data:
                self._poll.unregister(self._output)
            fits &= len(self.output) <= self._cap
        return fits

    def _take_claims(self) -> bool:
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if not data:
            self._poll.unregister(self._socket)
            self._listens = False
        self._received += len(data)
        self._partial += data
        if b"\n" in data:
            *lines, self._partial = self._partial.split(b"\n")
            self._lines += [_claim(line[33:]) for line in lines if line.startswith(self._nonce)]
        return self._received <= self._cap + 4096  # some room for our own words

    def _read_rest(self) -> bool:
        """What the program wrote before it ended."""
        self._poll.unregister(self._template)
        while ready := {fd: event for fd, event in self._poll.poll(0) if event != select.POLLOUT}:
            if not self._read_ready(ready):
                return False
        return True

    def _end(self) -> tuple[int, float] | None:
        try:
            status, seconds = self._answer.split()
            return int(status), float(seconds)
        except ValueError:
            return None

    def failure(self, event: str, payload: object) -> Outcome:
        """What an event other than the hoped-for one says about the program, or about us."""
        limits = self._limits
        if not self._hello:
            said = bytes(self._partial + (self._answer or b"")).decode("utf-8", "replace").strip()
            return Outcome("harness_error", detail=f"the program was not started ({event}): {said[:400]}")
        if event == "expired":
            return Outcome("timeout", detail=f"over {limits.wall_seconds:g} s")
        if event == "flood":
            return Outcome("error", detail=f"over {limits.output_kb} kB of output")
        if event == "memory":
            return Outcome("memory", detail=f"over {limits.memory_mb} MB")
        if event == "line":
            failed = payload.get("failed")
            status = failed if failed in ("not_json", "error", "memory") else "error"
            return Outcome(status, detail=str(payload.get("detail", "an unexpected result"))[:400])
        if payload is None:
            if "pid" in self._hello["namespaces"]:  # out of the program's reach
                return Outcome("harness_error", detail="the supervisor was killed")
            return Outcome("error", detail="the program killed its supervisor")
        status, seconds = payload
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
        if number == signal.SIGXCPU or code == signal.SIGXCPU and seconds >= limits.cpu_seconds:
            return Outcome("timeout", detail=f"over {limits.cpu_seconds:g} s of processor time")
        if number:
            return Outcome("error", detail=f"killed by signal {number}")
        return Outcome("error", detail=f"ended with exit code {code} before it was done")

    def _kill(self) -> None:
        if self._answer is None:
            self._template.kill_program()


def _claim(text: bytes) -> dict:
    """A line of the program; whatever it is, it does not trouble us."""
    try:
        claim = json.loads(text, object_pairs_hook=_untag)
        return claim if isinstance(claim, dict) else {}
    except (ValueError, RecursionError, TypeError, KeyError):
        return {"failed": "error", "detail": "an unreadable result"}


def _untag(pairs: list) -> object:
    tag, value = pairs[0] if len(pairs) == 1 else (None, None)
    if tag == "dict":
        return dict(value)
    if tag == "int":
        return int(value, 16)
    return dict(pairs)


def _resident_mb(pid: int) -> float:
    import psutil

    total = 0
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total / (1 << 20)
