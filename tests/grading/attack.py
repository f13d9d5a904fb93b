"""Runs the hostile programs and looks from outside whether each came to what it meant.

    python tests/grading/attack.py LEVEL        prints what `report` gives

Run by test_hostile.py, also as another user; needs nothing but the standard library.
"""

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
from hostile import EXPECTED, HOSTILE, Hostile  # noqa: E402

from mlx_ssd.grading import Limits, ProcessSandbox, grade  # noqa: E402
from mlx_ssd.grading.probe import programs_running  # noqa: E402

LEVELS = {  # what to turn off, so that a level holds
    "namespaces": {},
    "namespaces, cold": {"warm": False},
    "namespaces alone": {"landlock": False},
    "landlock": {"namespaces": False},
    "limits": {"namespaces": False, "landlock": False},
}
LIMITS = Limits(wall_seconds=0.3, cpu_seconds=5.0, memory_mb=256, output_kb=64, processes=4)
GOOD = [{"stdin": "1\n", "stdout": "2"}]
AT_A_TIME = 8


def must_hold(hostile: Hostile, level: str, landlock: int) -> bool:
    if level == "landlock":
        return hostile.landlock is not None and hostile.landlock <= landlock
    return hostile.limits or level != "limits"


class Surroundings:
    """What a program may be after, and `harm()`: what came of it."""

    def __init__(self, stack: contextlib.ExitStack):
        # Directly in /tmp: the path of a socket is of 100 bytes at most.
        self.outside = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="outside-", dir="/tmp")))
        stack.callback(lambda: self.outside.exists() and self.outside.chmod(0o700))
        self.secret = self.outside / "secret"
        self.secret.write_text(EXPECTED)
        self.tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.udp.bind(("127.0.0.1", 0))
        self.unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        self.unix.bind(str(self.outside / "socket"))
        self.abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        self.name = f"attack-{secrets.token_hex(8)}"
        self.abstract.bind(f"\0{self.name}" if sys.platform == "linux" else str(self.outside / "abstract"))
        for listener in (self.unix, self.abstract):
            listener.listen()
        self.victim = subprocess.Popen(["sleep", "600"])
        stack.callback(lambda: (self.victim.kill(), self.victim.wait()))
        self.key = secrets.randbits(30) + 1
        self.before = self._files()

    def fill(self, code: str) -> str:
        marks = {"secret": self.secret, "outside": self.outside, "victim": self.victim.pid, "grader": os.getpid()}
        marks |= {"tcp": self.tcp.getsockname()[1], "udp": self.udp.getsockname()[1], "unix": self.outside / "socket"}
        marks |= {"abstract": self.name, "key": self.key, "expected": EXPECTED, "homes": tempfile.gettempdir()}
        for mark, value in marks.items():
            code = code.replace(f"@{mark}@", str(value))
        return code

    def _files(self) -> dict:
        with contextlib.suppress(OSError):  # gone or closed: not what it was
            places = [self.outside, *self.outside.iterdir()]
            found = {str(path): (path.stat().st_mode, path.stat().st_mtime) for path in places}
            return found | {"secret": self.secret.read_text()}
        return {}

    def harm(self) -> list[str]:
        found = ["files changed"] if self._files() != self.before else []
        for listener, what in ((self.tcp, "TCP"), (self.udp, "UDP"), (self.unix, "Unix"), (self.abstract, "abstract")):
            listener.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                listener.recv(1) if listener is self.udp else listener.accept()[0].close()
                found.append(f"{what} reached")
        if self.victim.poll() is not None or _state(self.victim.pid) == "T":
            found.append("another process ended or stopped")
        return found + self._shared()

    def _shared(self) -> list[str]:
        libc = ctypes.CDLL(None)
        found = []
        for name, get, remove in (
            ("memory", lambda: libc.shmget(self.key, 0, 0), lambda number: libc.shmctl(number, 0, None)),
            ("semaphores", lambda: libc.semget(self.key, 0, 0), lambda number: libc.semctl(number, 0, 0)),
        ):
            number = get()
            if number >= 0:
                remove(number)
                found.append(f"{name} left behind")
        return found


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def attack(sandbox: ProcessSandbox, hostile: Hostile) -> str:
    """What came of the program, as a function and as a script; "" for nothing."""
    complaints = []
    with contextlib.ExitStack() as stack:
        around = Surroundings(stack)
        code = around.fill(hostile.code)
        body = "\n".join("    " + line for line in code.split("\n"))
        function = code if "def f" in code else f"def f(x):\n{body}\n"  # the harm is done in the call
        calls = [{"args": [1], "expected": EXPECTED}]
        lines = [{"stdin": "1\n", "stdout": EXPECTED}]
        forked = lines * 2  # all runs of a script but the last are forks of it
        for program, tests in [(function, calls), (code, lines), (code, forked), *[(code, lines)] * hostile.twice]:
            started = time.monotonic()
            verdict = grade("print(2 * int(input()))", None, GOOD, replace(LIMITS, wall_seconds=20), sandbox)
            pace = time.monotonic() - started
            if verdict.verdict != "pass":
                complaints.append(f"a good program got {verdict}")
            started = time.monotonic()
            verdict = grade(program, "f", tests, LIMITS, sandbox)
            took = time.monotonic() - started
            loads = 2 if tests is calls else 1
            if took > loads * LIMITS.wall_seconds + 1 + 3 * pace:  # other work on the machine slows all
                complaints.append(f"took {took:.1f} s")
            if verdict.verdict not in ("wrong", "error", "timeout", "memory"):
                complaints.append(f"{verdict.verdict} {verdict.detail}".strip())
        complaints += around.harm()
    return ", ".join(dict.fromkeys(complaints))


def attack_all(level: str, programs: list[Hostile] = HOSTILE) -> dict[str, str | None]:
    """{name: what came of it, None where it was not run}; "all": what they left behind together."""
    sandbox = ProcessSandbox(**LEVELS[level])
    run = [hostile for hostile in programs if not hostile.dangerous or level.startswith("namespaces")]
    homes, tempfile.tempdir = tempfile.tempdir, tempfile.mkdtemp(prefix="homes-")
    try:
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            harm = pool.map(lambda hostile: attack(sandbox, hostile), run)
            found = dict(zip([hostile.name for hostile in run], harm, strict=True))
        left = programs_running(os.getpid())
        found["all"] = f"{len(left)} processes left behind" if left else ""
        os.rmdir(tempfile.tempdir)
    finally:
        tempfile.tempdir = homes
    return dict.fromkeys([hostile.name for hostile in programs]) | found


def level_of(name: str) -> tuple[str, int]:
    """(level, Landlock version) that this machine gives where that level is asked for."""
    sandbox = ProcessSandbox(**LEVELS[name])
    return sandbox.level(), sandbox.mechanisms().get("landlock", 0)


def report(name: str) -> dict:
    """"level": what this machine gives where that level is asked for; "found" only where it is the one."""
    level, landlock = level_of(name)
    given = {"level": level, "landlock": landlock}
    if level == name.removesuffix(", cold").removesuffix(" alone"):
        given["found"] = attack_all(name)
    return given


@contextlib.contextmanager
def as_an_ordinary_user():
    """A function like `report` that runs as uid 65534, for root; None where no Python can be run by that user."""
    other = {"user": 65534, "group": 65534, "extra_groups": [], "env": {}, "cwd": "/", "capture_output": True}
    with contextlib.ExitStack() as stack:
        python = _python_of_all(other)
        if python is None:
            yield None
            return
        top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="attack-", dir="/tmp")))
        top.chmod(0o755)
        here = Path(__file__).parent
        for source in (here.parents[1] / "mlx_ssd", here):
            target = top / source.relative_to(here.parents[1])
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))

        def report_of_other(name: str) -> dict:
            command = [python, "-B", str(top / "tests" / "grading" / "attack.py"), name]
            return json.loads(subprocess.run(command, check=True, **other).stdout)

        yield report_of_other


def _python_of_all(other: dict) -> str | None:
    check = "import sys; sys.exit(sys.version_info < (3, 11))"
    for python in (os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"):
        with contextlib.suppress(OSError):
            if subprocess.run([python, "-c", check], **other).returncode == 0:
                return python
    return None


if __name__ == "__main__":
    print(json.dumps(report(sys.argv[1])))
