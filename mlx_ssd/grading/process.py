"""A sandbox of plain processes: one fresh interpreter a program, shut in by what the system offers.

On Linux the child enters its own namespaces and a Landlock domain, where the system permits; on macOS it
starts under sandbox-exec. What is not permitted is left out, and `describe()` says so: see docs/sandbox.md.
"""

import contextlib
import inspect
import marshal
import os
import py_compile
import secrets
import selectors
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property

from mlx_ssd.grading import macos, wire
from mlx_ssd.grading.sandbox import Limits, Outcome

START_SECONDS = 20.0  # for the interpreter to come up on a loaded machine; later is a harness error
END_SECONDS = 2.0  # for a supervisor to take its program down before it is killed itself
POLL_SECONDS = 0.05  # between looks at the memory, where the system cannot limit it
CHILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child.py")


class ProcessSandbox:
    """`namespaces` and `landlock` can be turned off to see what is left where a system has none."""

    def __init__(self, namespaces: bool = True, landlock: bool = True):
        self.namespaces, self.landlock = namespaces, landlock
        self._python = os.path.realpath(sys.executable)
        self._readable = _interpreter_paths()
        try:
            self._child = py_compile.compile(
                CHILD
            )  # a script given by path is otherwise compiled at each start
        except OSError:  # an installation that cannot be written
            self._child = CHILD
        # The child imports nothing of ours; it is given how values are written.
        self._wire = compile(inspect.getsource(wire), "<wire>", "exec", dont_inherit=True)

    def call(self, code: str, entry_point: str, calls: Sequence[list], limits: Limits) -> Iterator[Outcome]:
        job = {"code": code, "entry_point": entry_point, "calls": [marshal.dumps(args) for args in calls]}
        with _Child(self, job, limits) as child:
            event, payload = child.start()
            if event == "started":
                event, payload = child.wait(time.monotonic() + limits.wall_seconds)
            if event != "line" or payload.get("step") != "loaded":
                yield child.failure(event, payload)
                return
            for index in range(len(calls)):
                event, payload = child.wait(time.monotonic() + limits.wall_seconds)
                if event != "line" or payload.get("step") != index or "value" not in payload:
                    yield child.failure(event, payload)
                    return
                yield Outcome("ok", payload["value"])

    @contextlib.contextmanager
    def load(self, code: str, entry_point: str, limits: Limits) -> Iterator["Loaded"]:
        with _Child(self, {"code": code, "entry_point": entry_point}, limits) as child:
            yield Loaded(child, limits)

    def run(self, code: str, stdin: str, limits: Limits) -> Outcome:
        with _Child(self, {"code": code}, limits, stdin.encode("utf-8", "surrogateescape")) as child:
            event, payload = child.start()
            if event == "started":
                event, payload = child.wait(time.monotonic() + limits.wall_seconds)
            if event == "ended" and payload == 0:
                return Outcome("ok", bytes(child.output).decode("utf-8", "replace"))
            return child.failure(event, payload)

    def describe(self) -> dict:
        """See `mlx_ssd.grading.probe.probe`. Tried once for each sandbox object, about two seconds."""
        return dict(self._probed)

    def mechanisms(self) -> dict:
        """What the system granted to a program just now: namespaces, Landlock version, RLIMIT_AS."""
        limits = Limits(wall_seconds=5.0, cpu_seconds=5.0, memory_mb=256, output_kb=64, processes=4)
        with _Child(self, {"code": ""}, limits) as child:
            event, payload = child.start()
            return (
                child.mechanisms if event == "started" else {"failed": child.failure(event, payload).detail}
            )

    @cached_property
    def _probed(self) -> dict:
        from mlx_ssd.grading.probe import probe

        return probe(self) | self.mechanisms()

    def command(self, home: str) -> list[str]:
        # Not -I: it would also ignore PYTHONHASHSEED, and a verdict could then change from run to run with
        # the order of a set. The environment holds nothing but ours, so -P and -s give the rest of -I.
        flags = ["-P", "-s", "-S", "-B", "-X", "utf8"]
        reads = [self._child, *self._readable]
        prefix = macos.sandbox_exec(self._python, reads, home) if sys.platform == "darwin" else []
        return [*prefix, self._python, *flags, self._child]


def _interpreter_paths() -> list[str]:
    paths = [
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("platstdlib"),
        os.path.join(sys.base_prefix, "lib"),
    ]
    paths += ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"]
    paths += ["/usr/share/zoneinfo", "/etc/localtime", "/dev/urandom"]
    return sorted({os.path.realpath(path) for path in paths if os.path.exists(path)})


class Loaded:
    """A program that is called as its user goes along; see `Sandbox.load`."""

    def __init__(self, child: "_Child", limits: Limits):
        self._child, self._limits = child, limits
        self._calls, self._loaded = 0, False
        self._ended: Outcome | None = None

    def call(self, args: list) -> Outcome:
        request = marshal.dumps(marshal.dumps(args))
        if self._ended is None and not self._loaded:
            self._load()
        if self._ended is not None:
            return self._ended
        index, self._calls = self._calls, self._calls + 1
        deadline = time.monotonic() + self._limits.wall_seconds
        self._child.ask(request, deadline)
        event, payload = self._child.wait(deadline)
        ours = event == "line" and payload.get("step") == index
        if ours and "value" in payload:
            return Outcome("ok", payload["value"])
        outcome = self._child.failure(event, payload)
        if ours and outcome.status in ("error", "not_json"):
            return replace(outcome, raised=outcome.status == "error")
        self._ended = outcome
        return outcome

    def _load(self) -> None:
        event, payload = self._child.start()
        if event == "started":
            event, payload = self._child.wait(time.monotonic() + self._limits.wall_seconds)
        self._loaded = event == "line" and payload.get("step") == "loaded"
        if not self._loaded:
            self._ended = self._child.failure(event, payload)


class _Child:
    """A started child.py, its pipes, its clock and its end. Used as a context: leaving it kills all of it."""

    def __init__(self, sandbox: ProcessSandbox, job: dict, limits: Limits, stdin: bytes | None = None):
        self._limits = limits
        self._cap = limits.output_kb * 1024
        self._nonce = secrets.token_hex(16).encode()
        self._lines: deque[dict] = deque()
        self._partial = bytearray()
        self._received = 0
        self._hello: dict = {}
        self._status, self._ended = bytearray(), False
        self.output = bytearray()
        with contextlib.ExitStack() as stack:
            self.home = os.path.realpath(tempfile.mkdtemp(prefix="mlx-ssd-"))
            stack.callback(remove_tree, self.home)
            files = stack.enter_context(contextlib.ExitStack())  # what only the child keeps
            self._selector = stack.enter_context(selectors.DefaultSelector())
            job |= {
                "nonce": self._nonce.decode(),
                "wire": sandbox._wire,
                "home": self.home,
                "limits": asdict(limits),
                "readable": sandbox._readable,
                "namespaces": sandbox.namespaces,
                "landlock": sandbox.landlock,
            }
            job_file = files.enter_context(_file_of(marshal.dumps(job)))
            stdin_file = files.enter_context(_file_of(stdin)) if stdin is not None else subprocess.DEVNULL
            result_fd, status_fd = (self._pipe(stack, files, name) for name in ("result", "status"))
            request_fd, self._requests = os.pipe()
            files.callback(os.close, request_fd)
            stack.callback(os.close, self._requests)
            os.set_blocking(self._requests, False)
            fds = [job_file.fileno(), result_fd, status_fd, request_fd]
            self._process = subprocess.Popen(
                [*sandbox.command(self.home), *map(str, fds)],
                stdin=stdin_file,
                stdout=subprocess.DEVNULL if stdin is None else self._pipe(stack, files, "output"),
                stderr=self._pipe(stack, files, "complaint"),
                cwd=self.home,
                env={"HOME": self.home, "TMPDIR": self.home, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"},
                pass_fds=fds,
                start_new_session=True,
            )
            stack.callback(self._kill)
            files.close()
            self._stack = stack.pop_all()

    def _pipe(self, stack: contextlib.ExitStack, files: contextlib.ExitStack, name: str) -> int:
        """Watches the reading end under `name`; returns the writing end."""
        reading, writing = os.pipe()
        stack.callback(os.close, reading)
        files.callback(os.close, writing)
        os.set_blocking(reading, False)
        self._selector.register(reading, selectors.EVENT_READ, name)
        return writing

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()

    def start(self) -> tuple[str, object]:
        """("started", None), or what happened instead."""
        event, payload = self.wait(time.monotonic() + START_SECONDS)
        if event == "line" and payload.get("step") == "hello":
            self._hello = payload
            return "started", None
        return event, payload

    def ask(self, request: bytes, deadline: float) -> None:
        """Writes until the deadline; what became of a program that did not read is told by `wait`."""
        left = memoryview(request)
        with selectors.DefaultSelector() as writable, contextlib.suppress(BrokenPipeError):
            writable.register(self._requests, selectors.EVENT_WRITE)
            while left and writable.select(max(0.0, deadline - time.monotonic())):
                left = left[os.write(self._requests, left) :]

    @property
    def mechanisms(self) -> dict:
        return {key: value for key, value in self._hello.items() if key != "step"}

    def wait(self, deadline: float) -> tuple[str, object]:
        """What comes first: ("line", claim of the program), ("ended", wait status, None where even the
        supervisor is gone), ("flood", None), ("memory", None), ("expired", None)."""
        watch_memory = self._hello and not self._hello["address_space"]
        self._received = 0
        while True:
            if self._lines:
                return "line", self._lines.popleft()
            if self._ended:
                return "ended", int(self._status) if self._status.endswith(b"\n") else None
            left = deadline - time.monotonic()
            if left <= 0:
                return "expired", None
            for key, _ in self._selector.select(min(left, POLL_SECONDS) if watch_memory else left):
                if key.data == "status":
                    data = _read(key.fd)
                    self._status += data
                    self._ended = not data or data.endswith(b"\n")
                elif not self._take(key):
                    return "flood", None
            if self._ended and not self._take_rest():
                return "flood", None
            if watch_memory and _resident_mb(self._process.pid) > self._limits.memory_mb:
                return "memory", None

    def _take(self, key: selectors.SelectorKey) -> bool:
        """Reads once from a pipe of the program; False when it wrote more than it may."""
        data = _read(key.fd)
        if not data:
            self._selector.unregister(key.fd)
        elif key.data == "output":
            self.output += data
            return len(self.output) <= self._cap
        elif key.data == "result":
            self._received += len(data)
            self._partial += data
            if b"\n" in data:
                *lines, self._partial = self._partial.split(b"\n")
                self._lines += [_claim(line[33:]) for line in lines if line.startswith(self._nonce)]
            return self._received <= self._cap + 4096  # some room for our own words
        elif key.data == "complaint" and not self._hello:
            self.output += data[-1000:]
        return True

    def _take_rest(self) -> bool:
        """What the program wrote before it ended."""
        while True:
            ready = [key for key, _ in self._selector.select(0) if key.data in ("output", "result")]
            if not ready:
                return True
            if not all([self._take(key) for key in ready]):
                return False

    def failure(self, event: str, payload: object) -> Outcome:
        """What an event other than the hoped-for one says about the program, or about us."""
        limits = self._limits
        if not self._hello:
            said = bytes(self.output).decode("utf-8", "replace").strip().rpartition("\n")[2]
            return Outcome("harness_error", detail=f"the sandbox did not start ({event}): {said}")
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
        if os.WIFSIGNALED(payload):
            number = os.WTERMSIG(payload)
            if number == signal.SIGXCPU:
                return Outcome("timeout", detail=f"over {limits.cpu_seconds:g} s of processor time")
            return Outcome("error", detail=f"killed by signal {number}")
        return Outcome("error", detail=f"ended with exit code {os.WEXITSTATUS(payload)} before it was done")

    def _kill(self) -> None:
        """Ends the supervisor, which ends the program first, and waits until it is gone."""
        self._process.terminate()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _file_of(data: bytes):
    file = tempfile.TemporaryFile()
    file.write(data)
    file.seek(0)
    return file


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 16)
    except BlockingIOError:
        return b""


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


def remove_tree(top: str) -> None:
    """Removes a hostile directory, be it made unreadable or nested deeper than recursion or open files allow.

    Each directory's subdirectories are first moved up to `top`, so no path is ever deep. What cannot be
    removed stays.
    """
    pending, moved = [top], 0
    with contextlib.suppress(OSError):
        while pending:
            directory = pending.pop()
            os.chmod(directory, 0o700)
            for entry in list(os.scandir(directory)):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                elif directory == top:
                    pending.append(entry.path)
                else:
                    moved += 1
                    target = os.path.join(top, f".moved-{moved}-{secrets.token_hex(4)}")
                    os.chmod(entry.path, 0o700)  # moving a directory writes its ".."
                    os.rename(entry.path, target)
                    pending.append(target)
            if directory != top:
                os.rmdir(directory)
        os.rmdir(top)
