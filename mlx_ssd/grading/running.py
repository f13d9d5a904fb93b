"""A running program as the grader sees it: its descriptors, its clock, its claims and its end."""

import contextlib
import marshal
import os
import secrets
import select
import signal
import socket
import time
from collections import deque
from dataclasses import asdict

from mlx_ssd.grading import wire
from mlx_ssd.grading.files import file_of
from mlx_ssd.grading.sandbox import Limits, Outcome
from mlx_ssd.grading.templates import START_SECONDS, End, Template

POLL_SECONDS = 0.05  # between looks at the memory, where the system cannot limit it


class Running:
    """A program forked from `template`. Used as a context: leaving it kills all that is left of it.

    job: {"code", "entry_point"} of functions, or {"code"} of a script.
    """

    def __init__(self, template: Template, home: str, job: dict, limits: Limits):
        self._template, self._limits = template, limits
        self._cap = limits.output_kb * 1024
        self._nonce = secrets.token_hex(16).encode()
        self._lines: deque[dict] = deque()
        self._partial, self._received = bytearray(), 0
        self._looked = 0.0  # at its memory, by time.monotonic()
        self._to_send = bytearray()
        self._end: End | None = None
        # Standard input and output of runs that were started, the current first. Open until the run is over, as is the
        # program's socket until the program spoke: macOS may lose a descriptor that its sender closes while it is on
        # its way (bpo-14669).
        self._files: deque[tuple[int, int]] = deque()
        self._events = select.POLLIN
        self._poll = select.poll()
        with contextlib.ExitStack() as stack:
            self._socket, self._theirs = socket.socketpair()
            stack.enter_context(self._socket)
            stack.enter_context(self._theirs)
            self._socket.setblocking(False)
            stack.callback(self._close_files)
            self._asked = time.monotonic()
            template.begin(home, self._theirs.fileno())
            stack.callback(self.kill)
            self._poll.register(template, select.POLLIN)
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

    def start(self, stdin: bytes, last: bool) -> None:
        """One more run of a script, when those before have ended. The last one's end is that of the program, of the
        others it sends a line. Where it does not take it, `wait` says why."""
        given = file_of(stdin)
        try:
            self._files.append((given, file_of(b"")))
        except OSError:
            os.close(given)
            raise
        with contextlib.suppress(BlockingIOError, ConnectionError):
            socket.send_fds(self._socket, [b"l" if last else b"r"], self._files[-1])

    def _close_files(self) -> None:
        while self._files:
            self.next()

    def _send_more(self) -> None:
        try:
            del self._to_send[: self._socket.send(self._to_send)]
        except BlockingIOError:
            pass
        except OSError:  # it closed its end
            self._to_send.clear()
        if self._to_send:
            self._poll.register(self._socket, self._events | select.POLLOUT)
        elif self._events:
            self._poll.register(self._socket, self._events)
        else:
            with contextlib.suppress(KeyError):
                self._poll.unregister(self._socket)

    def wait(self, since: float | None = None) -> tuple[str, object]:
        """What comes first: ("line", claim of the program), ("ended", End), ("flood", None), ("memory", None),
        ("expired", None): wall_seconds after `since`, or after the program began, be that late."""
        wall, watch_memory = self._limits.wall_seconds, not self._template.granted["address_space"]
        self._received = 0
        while not self._lines:
            if self._end is not None:
                return "ended", self._end
            begun = self._template.began() if since is None else since
            left = (begun + wall if begun else self._asked + START_SECONDS) - time.monotonic()
            if watch_memory or not begun:
                left = min(left, POLL_SECONDS if watch_memory else wall)
            ready = dict(self._poll.poll(1000 * left + 1 if left > 0 else 0))  # we may come late to what came in time
            if left <= 0 and not ready:
                return "expired", None
            events = ready.get(self._socket.fileno(), 0)
            if events & select.POLLOUT:
                self._send_more()
            if self._template.fileno() in ready:
                self._end = self._template.answer()
                while self._take_claims():  # what it wrote before it ended
                    pass
            elif events & ~select.POLLOUT and not self._take_claims():  # it closed its end
                self._events = 0
                self._poll.unregister(self._socket)
            if self._received > self._cap + 4096:  # some room for our own words
                return "flood", None
            if watch_memory and self._is_over_memory():
                return "memory", None
        return "line", self._lines.popleft()

    def _is_over_memory(self) -> bool:
        """Looked at now and then: it asks the system about every process there is."""
        now = time.monotonic()
        if now - self._looked < POLL_SECONDS:
            return False
        self._looked = now
        return _resident_mb(self._template.pid) > self._limits.memory_mb

    def _take_claims(self) -> bool:
        """Reads once; False where there is nothing or it is more than the program may say."""
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return self._end is None
        except OSError:
            return False
        self._theirs.close()
        self._received += len(data)
        self._partial += data
        if b"\n" in data:
            *lines, self._partial = self._partial.split(b"\n")
            self._lines += [_claim(bytes(line[33:])) for line in lines if line.startswith(self._nonce)]
        return bool(data) and self._received <= self._cap + (1 << 17)

    def output(self) -> bytes | None:
        """What the current run printed; None where that is more than it may."""
        _, printed = self._files[0]
        size = os.fstat(printed).st_size
        return None if size > self._cap else os.pread(printed, size, 0)

    def next(self) -> None:
        """The next run is the current one."""
        for file in self._files.popleft():
            os.close(file)

    def failure(self, event: str, payload: object) -> Outcome:
        """What an event other than the hoped-for one says about the program, or about us. Ends it."""
        self.kill()
        limits, end = self._limits, payload if event == "ended" else self._end
        if end.status is not None and not end.started:
            said = bytes(self._partial).decode("utf-8", "replace").strip()
            return Outcome("harness_error", detail=f"the program was not started ({event}): {said[:400]}")
        if event == "flood" or self._files and self.output() is None:
            return Outcome("error", detail=f"over {limits.output_kb} kB of output")
        if event == "expired":
            return Outcome("timeout", detail=f"over {limits.wall_seconds:g} s")
        if event == "memory":
            return Outcome("memory", detail=f"over {limits.memory_mb} MB")
        if event == "line":
            return self.claimed_failure(payload)
        if end.status is None:
            if "pid" in self._template.granted["namespaces"]:  # out of the program's reach
                return Outcome("harness_error", detail="the template was killed")
            return Outcome("error", detail="the program killed its template")
        number = os.WTERMSIG(end.status) if os.WIFSIGNALED(end.status) else 0
        code = end.exit_code
        if number == signal.SIGXCPU or code == signal.SIGXCPU and end.cpu_seconds >= limits.cpu_seconds:
            return Outcome("timeout", detail=f"over {limits.cpu_seconds:g} s of processor time")
        if number:
            return Outcome("error", detail=f"killed by signal {number}")
        return Outcome("error", detail=f"ended with exit code {code} before it was done")

    @staticmethod
    def claimed_failure(claim: dict) -> Outcome:
        failed = claim.get("failed")
        status = failed if failed in ("not_json", "error", "memory") else "error"
        return Outcome(status, detail=str(claim.get("detail", "an unexpected result"))[:400])

    @staticmethod
    def claimed_end(claim: dict) -> End:
        """Of a run of a script; by the program's word, as what it printed is."""
        return End(claim["status"] & 0xFFFF, started=True)

    def kill(self) -> None:
        if self._end is None:
            self._end = self._template.kill_program()


def _claim(text: bytes) -> dict:
    """A line of the program; whatever it is, it does not trouble us."""
    try:
        claim = wire.decode(text)
        return claim if isinstance(claim, dict) else {}
    except (ValueError, RecursionError, TypeError, OverflowError):
        return {"failed": "error", "detail": "an unreadable result"}


def _resident_mb(pid: int) -> float:
    import psutil

    total = 0
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total / (1 << 20)
