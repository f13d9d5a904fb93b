"""What a sandbox really enforces on this machine, found by trying to break each limit."""

import contextlib
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mlx_ssd.grading.sandbox import Limits, Sandbox

_LIMITS = Limits(wall_seconds=5.0, cpu_seconds=5.0, memory_mb=256, output_kb=64, processes=4)


def probe(sandbox: Sandbox) -> dict:
    """Each key is True where the attempt was stopped: time, memory, output, files_written (outside the
    program's own directory), files_read (outside it and the interpreter), network (TCP and UDP),
    processes (their number), descendants (a daemon is killed with the program)."""
    found = {"sandbox": type(sandbox).__name__, "platform": sys.platform}
    with tempfile.TemporaryDirectory(prefix="mlx-ssd-probe-") as outside:
        if _run(sandbox, "print('ready')").value != "ready\n":
            return found | {"works": False}
        return found | {
            "works": True,
            "time": _time(sandbox),
            "memory": _run(sandbox, "x = bytearray(1 << 30)\nprint(len(x))").status == "memory",
            "output": _run(sandbox, "while True: print('x' * 1000)").detail.endswith("kB of output"),
            "files_written": _files_written(sandbox, outside),
            "files_read": _files_read(sandbox, outside),
            "network": _network(sandbox),
            "processes": _number_of_processes(sandbox),
            "descendants": _descendants(sandbox),
        }


def _run(sandbox: Sandbox, code: str, **limits):
    return sandbox.run(code, "", replace(_LIMITS, **limits))


def _time(sandbox: Sandbox) -> bool:
    started = time.monotonic()
    outcome = _run(sandbox, "while True: pass", wall_seconds=0.3)
    return outcome.status == "timeout" and time.monotonic() - started < 3.0


def _files_written(sandbox: Sandbox, outside: str) -> bool:
    path = os.path.join(outside, "written")
    _run(sandbox, f"open({path!r}, 'w').write('x')")
    return not os.path.exists(path)


def _files_read(sandbox: Sandbox, outside: str) -> bool:
    path = os.path.join(outside, "secret")
    with open(path, "w") as file:
        file.write("secret")
    return _run(sandbox, f"print(open({path!r}).read())").value != "secret\n"


def _network(sandbox: Sandbox) -> bool:
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        udp.bind(("127.0.0.1", 0))
        for listener in (tcp, udp):
            listener.settimeout(0.2)
        _run(sandbox, f"import socket\nsocket.create_connection({tcp.getsockname()!r}, 1)")
        _run(
            sandbox,
            "import socket\n"
            f"socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', {udp.getsockname()!r})",
        )
        for receive in (tcp.accept, lambda: udp.recv(1)):
            with contextlib.suppress(TimeoutError):
                receive()
                return False
    return True


def _number_of_processes(sandbox: Sandbox) -> bool:
    code = """
import os, time
made = 0
for _ in range(12):
    try:
        if os.fork() == 0:
            time.sleep(10)
            os._exit(0)
    except OSError:
        break
    made += 1
print(made)
"""
    made = _run(sandbox, code).value
    return made is not None and int(made) <= _LIMITS.processes


def _descendants(sandbox: Sandbox) -> bool:
    code = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(30)
    os._exit(0)
os.wait()
print('left')
"""
    before = programs_running(os.getpid())
    return _run(sandbox, code).value == "left\n" and not programs_running(os.getpid()) - before


def programs_running(grader: int) -> set[int]:
    """Processes of programs, and of what they started, of sandboxes of the process `grader`.

    They are known by the mark in their command line, which a fork shares with its template. Templates are not
    counted: children of the grader and, where there is a process namespace, process 1 in it.
    """
    marked = {}
    for pid, parent, command in _processes():
        if any(word.startswith(f"mlx-ssd-{grader}-") for word in command):
            marked[pid] = parent, _namespace(pid)
    keepers = {pid for pid, (parent, _) in marked.items() if parent == grader}
    inner = {pid for pid, (parent, space) in marked.items() if parent in keepers and space != marked[parent][1]}
    return marked.keys() - keepers - inner


def _processes() -> Iterator[tuple[int, int, list[str]]]:
    """(pid, parent, command line) of each."""
    if sys.platform != "linux":
        import psutil

        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                yield process.pid, process.ppid(), process.cmdline()
        return
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{name}/cmdline").read_bytes()
                stat = Path(f"/proc/{name}/stat").read_text(errors="replace")
                yield int(name), int(stat.rpartition(")")[2].split()[1]), command.decode("utf-8", "replace").split("\0")


def _namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:  # of another user, or no /proc
        return None
