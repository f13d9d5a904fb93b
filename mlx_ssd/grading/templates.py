"""The grader's end of the process that programs are forked from: inside/template.py."""

import contextlib
import marshal
import mmap
import os
import socket
import subprocess
import sys
from dataclasses import dataclass

from mlx_ssd.grading.files import file_of, remove_tree

START_SECONDS = 20.0  # for the interpreter to come up on a loaded machine; later is a harness error
END_SECONDS = 2.0  # for a program to be taken down before its template is killed


class TemplateFailed(OSError):
    """It did not start, or does not answer."""


@dataclass(frozen=True)
class End:
    """Of a program and all that it started. status: as of os.wait, None where the template is gone too.
    started: whether the program itself had begun."""

    status: int | None = None
    cpu_seconds: float = 0.0
    started: bool = False

    @property
    def exit_code(self) -> int | None:
        return os.WEXITSTATUS(self.status) if self.status is not None and os.WIFEXITED(self.status) else None


class Template:
    """A started template; `granted` is what the system gave it. For one program at a time.

    home: the directory of its only program where it is not to serve any others, removed by `close`.
    """

    def __init__(self, command: list[str], setup: dict, home: str | None = None):
        self.home = home
        self.reusable = home is None
        ours, theirs = socket.socketpair()
        clock = file_of(bytes(8))
        self._clock = mmap.mmap(clock, 8)
        stream = file_of(b"")  # of the kind that programs get: the interpreter's streams are made once
        try:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(clock), setup["mark"]],
                stdin=stream,
                stdout=stream,
                stderr=subprocess.PIPE,
                cwd="/",
                # Functions of libraries are looked up once, not in each fork.
                env={"LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "LD_BIND_NOW": "1"},
                pass_fds=[theirs.fileno(), clock],
                start_new_session=True,
            )
        finally:
            os.close(stream)
            os.close(clock)
            theirs.close()
        self._socket = ours
        ours.settimeout(START_SECONDS)
        try:
            with contextlib.suppress(BrokenPipeError):
                ours.sendall(marshal.dumps(setup))
            answer = ours.recv(1 << 16)
            if not answer:
                raise TemplateFailed("ended at once")
            self.granted: dict = marshal.loads(answer)
        except (OSError, ValueError, EOFError) as error:
            raise TemplateFailed(f"{error}: {self.close()}") from error

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def fileno(self) -> int:
        return self._socket.fileno()

    def begin(self, home: str, fd: int) -> None:
        """Forks a program with this as its socket."""
        self._clock[:] = bytes(8)  # here and not there: it must not show the program before, even for a moment
        try:
            socket.send_fds(self._socket, [b"r" + os.fsencode(home)], [fd])
        except OSError as error:
            self.reusable = False
            raise TemplateFailed(f"the template is gone: {error}") from error

    def began(self) -> float:
        """When its program began, by time.monotonic(); 0 where it did not yet."""
        return int.from_bytes(self._clock[:8], sys.byteorder) / 1e9

    def answer(self) -> End:
        """To be read when there is something."""
        try:
            data = self._socket.recv(4096)
            while data and not data.endswith(b"\n"):
                data += self._socket.recv(4096)
            status, seconds, started = data.split()
            return End(int(status), float(seconds), started == b"1")
        except (OSError, ValueError):
            self.reusable = False
            return End()

    def kill_program(self) -> End:
        """Returns when nothing of it is left; where that takes too long, the template ends too."""
        self._socket.settimeout(END_SECONDS)
        with contextlib.suppress(OSError):
            self._socket.send(b"k")
        end = self.answer()
        if end.status is None:
            self.close()
        return end

    def close(self) -> str:
        """Ends it and what it started; returns the last line it complained of."""
        self.reusable = False
        self._socket.close()
        try:
            self._process.wait(END_SECONDS)  # by the closed socket; so it can end its program first
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        said = b""
        if not self._process.stderr.closed:
            os.set_blocking(self._process.stderr.fileno(), False)
            said = self._process.stderr.read() or b""
            self._process.stderr.close()
        if self.home is not None:
            remove_tree(self.home)
        return said.decode("utf-8", "replace").strip().rpartition("\n")[2]
