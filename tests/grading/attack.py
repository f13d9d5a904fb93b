"""Runs the hostile programs and looks from outside whether each came to what it meant.

    python tests/grading/attack.py LEVEL        prints {name: what came of it, "" for nothing, null for not run}

Run by test_hostile.py, also as another user; needs nothing but the standard library.
"""

import contextlib
import ctypes
import json
import os
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
AT_A_TIME = 4


def must_hold(hostile: Hostile, level: str, landlock: int) -> bool:
    if level == "landlock":
        return hostile.landlock is not None and hostile.landlock <= landlock
    return hostile.limits or level != "limits"


class Surroundings:
    """What a program may be after, and `harm()`: what came of it."""

    def __init__(self, stack: contextlib.ExitStack):
        self.outside = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="outside-")))
        stack.callback(lambda: self.outside.exists() and self.outside.chmod(0o700))
        self.secret = self.outside / "secret"
        self.secret.write_text(EXPECTED)
        self.tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.udp.bind(("127.0.0.1", 0))
        self.unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        self.unix.bind(str(self.outside / "socket"))
        self.abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        self.name = f"mlx-ssd-{os.getpid()}-{id(self)}"
        self.abstract.bind(f"\0{self.name}" if sys.platform == "linux" else str(self.outside / "abstract"))
        for listener in (self.unix, self.abstract):
            listener.listen()
        self.victim = subprocess.Popen(["sleep", "600"])
        stack.callback(lambda: (self.victim.kill(), self.victim.wait()))
        self.key = (os.getpid() << 12 ^ id(self) >> 4) & 0x7FFFFFFF
        self.before = self._files()

    def fill(self, code: str) -> str:
        marks = {"secret": self.secret, "outside": self.outside, "victim": self.victim.pid, "grader": os.getpid()}
        marks |= {"tcp": self.tcp.getsockname()[1], "udp": self.udp.getsockname()[1], "unix": self.outside / "socket"}
        marks |= {"abstract": self.name, "key": self.key, "expected": EXPECTED, "homes": tempfile.gettempdir()}
        for mark, value in marks.items():
            code = code.replace(f"@{mark}@", str(value))
        return code

    def _files(self) -> dict:
        if not self.outside.exists():
            return {}
        places = [self.outside, *self.outside.iterdir()] if os.access(self.outside, os.R_OK | os.X_OK) else []
        found = {str(path): (path.stat().st_mode, path.stat().st_mtime) for path in places}
        return found | ({"secret": self.secret.read_text()} if self.secret.exists() else {})

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
        for program, tests in [(function, calls), (code, lines), *[(code, lines)] * hostile.twice]:
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
    """{name: what came of it, None where it was not run}."""
    sandbox = ProcessSandbox(**LEVELS[level])
    if sandbox.level() != level.split()[0].rstrip(","):
        raise SystemExit(f"this machine gives level {sandbox.level()}")
    run = [hostile for hostile in programs if not hostile.dangerous or level.startswith("namespaces")]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        found = dict(zip([hostile.name for hostile in run], pool.map(lambda h: attack(sandbox, h), run), strict=True))
    left = programs_running(os.getpid())
    if left:
        found["all"] = f"{len(left)} processes left behind"
    return {hostile.name: found.get(hostile.name) for hostile in programs} | {"all": found.get("all", "")}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as homes:
        tempfile.tempdir = homes
        result = attack_all(sys.argv[1])
        result["all"] += "directories left behind" * bool(os.listdir(homes))
    print(json.dumps({"landlock": ProcessSandbox().mechanisms().get("landlock", 0), "found": result}))
