"""The grader's end of the process that programs are forked from: inside/template.py."""

import contextlib
import marshal
import os
import socket
import subprocess

from mlx_ssd.grading.files import remove_tree

START_SECONDS = 20.0  # for the interpreter to come up on a loaded machine; later is a harness error
END_SECONDS = 2.0  # for a program to be taken down before its template is killed


class TemplateFailed(OSError):
    """It did not start, or does not answer."""


class Template:
    """A started template; `granted` is what the system gave it. For one program at a time.

    home: the directory of its only program where it is not to serve any others, removed by `close`.
    """

    def __init__(self, command: list[str], setup: dict, home: str | None = None):
        self.home = home
        self.reusable = home is None
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), setup["mark"]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd="/",
                env={"LANG": "C.UTF-8", "PYTHONHASHSEED": "0"},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
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

    def fileno(self) -> int:
        return self._socket.fileno()

    def begin(self, home: str, fds: list[int]) -> None:
        """Forks a program with these as standard input, standard output and socket."""
        try:
            socket.send_fds(self._socket, [b"r" + os.fsencode(home)], fds)
        except OSError as error:
            self.reusable = False
            raise TemplateFailed(f"the template is gone: {error}") from error

    def answer(self) -> bytes:
        """What it says of the end of its program, to be read when there is something; empty when it is gone."""
        try:
            data = self._socket.recv(4096)
            while data and not data.endswith(b"\n"):
                data += self._socket.recv(4096)
        except OSError:
            data = b""
        self.reusable &= data.endswith(b"\n")
        return data

    def kill_program(self) -> None:
        """Returns when nothing of it is left; else ends the template too."""
        self._socket.settimeout(END_SECONDS)
        with contextlib.suppress(OSError):
            self._socket.send(b"k")
        if not self.answer():
            self.close()

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
