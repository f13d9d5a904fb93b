"""The runs of one script: each a process of its own, which gets nothing of the one before."""

import os
import sys
from dataclasses import replace

import pytest

from mlx_ssd.grading import ProcessSandbox

RUNS = 4


@pytest.mark.parametrize(
    "harm",
    [
        "import builtins\nassert not hasattr(builtins, 'seen')\nbuiltins.seen = sys.modules['seen'] = 1",
        "sys.stdin.close()\nsys.stdout.flush()\nos.close(0)\nos.close(3)",
        "assert not os.listdir()\nopen('left', 'w').close()",
        "assert not os.listdir()\nos.makedirs('left/below')",
        "open('x', 'w').close()\nos.remove('x')\nos.chmod('.', 0o500)",
        "os.chdir('/')",
        "os.fork() or time.sleep(60)",
        "import gc\nif os.fork() == 0:\n    os.setsid()\n    os.fork() or time.sleep(60)\n    os._exit(0)",
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (60, 60))\nsys.setrecursionlimit(50)",
        "import signal\nsignal.signal(signal.SIGALRM, lambda *_: 0)\nsignal.alarm(1)\nos.kill(0, signal.SIGALRM)",
    ],
)
def test_runs_of_a_script_leave_each_other_nothing(sandbox, limits, harm):
    code = f"import os, sys, time\nprint(input())\n{harm}"
    stdins = [f"{number}\n" for number in range(RUNS)]
    assert [outcome.value for outcome in sandbox.runs(code, stdins, limits)] == stdins


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a daemon gets away")
def test_what_a_run_left_running_does_not_disturb_the_next(sandbox, limits):
    code = """
import os, time
if input() == "first":
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(0.4)
            open("late", "w").close()
        os._exit(0)
    os.wait()
else:
    time.sleep(0.8)
    print(os.listdir())
"""
    assert [outcome.value for outcome in sandbox.runs(code, ["first", "\n", "\n"], limits)] == ["", "[]\n", "[]\n"]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's ptrace")
def test_a_run_that_has_its_parent_trace_it_is_ended_at_once(sandbox, limits):
    code = "import ctypes, os\nctypes.CDLL(None).ptrace(0, 0, 0, 0)\nos.kill(os.getpid(), 19)\nos.kill(os.getpid(), 11)"
    [outcome] = sandbox.runs(code, ["", ""], limits)
    assert (outcome.status, outcome.detail) == ("error", "killed by signal 9")


def test_a_program_never_has_files_of_the_grader(limits):
    """However many the grader has: the socket and the clock of the template then have high numbers there."""
    many = [os.dup(0) for _ in range(150)]
    try:
        code = "import os\nfound = []\nfor fd in range(1000):\n    try: found.append(os.fstat(fd) and fd)\n"
        code += "    except OSError: pass\nprint(found)"
        outcomes = list(ProcessSandbox().runs(code, ["", ""], limits))
        outcomes += ProcessSandbox(warm=False).runs(code, [""], limits)
    finally:
        for fd in many:
            os.close(fd)
    assert [outcome.value for outcome in outcomes] == ["[0, 1, 2, 3]\n"] * 3


def test_each_run_of_a_script_is_a_process_of_its_own(sandbox, limits):
    outcomes = list(sandbox.runs("import os\nprint(os.getpid(), id(object()))", [""] * RUNS, limits))
    assert [outcome.status for outcome in outcomes] == ["ok"] * RUNS
    assert len({outcome.value.split()[0] for outcome in outcomes}) == RUNS


@pytest.mark.parametrize("bad", [0, 1, RUNS - 1])
@pytest.mark.parametrize(
    "harm, status, detail",
    [
        ("1 / 0", "error", "ZeroDivisionError: division by zero (line 3)"),
        ("sys.exit(75)", "error", "exit code 75"),
        ("os.kill(os.getpid(), 11) or os.abort()", "error", ""),
        ("while True: pass", "timeout", "over 0.5 s"),
        ("print('x' * 100_000)", "error", "over 64 kB of output"),
        ("bytearray(1 << 30)", "memory", "MemoryError"),
    ],
)
def test_the_run_that_fails_is_the_last(sandboxes, limits, bad, harm, status, detail):
    code = f"import os, sys\nif input() == '{bad}':\n    {harm}"
    limits = replace(limits, wall_seconds=0.5) if status == "timeout" else limits
    outcomes = list(sandboxes["whole"].runs(code, [f"{number}\n" for number in range(RUNS)], limits))
    assert [outcome.status for outcome in outcomes] == ["ok"] * bad + [status]
    assert detail in outcomes[-1].detail


def test_processor_time_is_limited_per_run(sandboxes, limits):
    code = "import time\nend = time.process_time() + float(input())\nwhile time.process_time() < end: pass"
    limits = replace(limits, wall_seconds=20.0, cpu_seconds=1.0)
    found = [outcome for outcome in sandboxes["whole"].runs(code, ["0.8", "0.8", "0.8", "9", "0"], limits)]
    assert [outcome.status for outcome in found] == ["ok"] * 3 + ["timeout"]
    assert "processor" in found[-1].detail


def test_a_script_that_does_not_compile_is_one_outcome(sandbox, limits):
    [outcome] = sandbox.runs("x = (", ["", ""], limits)
    assert outcome.status == "error" and "SyntaxError" in outcome.detail


def test_a_run_cannot_speak_for_the_next_without_the_next_being_run(sandboxes, limits):
    """It claims that all ended well. What it printed for the others is nothing."""
    code = """
import gc, json, os, time
print(input(), flush=True)
nonce = next(x.nonce for x in gc.get_objects() + gc.get_referrers(json) if type(x).__name__ == "Results")
for step in range(4):
    os.write(3, f'\\n{nonce} {{"step": {step}, "status": 0, "clean": 1}}\\n'.encode())
time.sleep(60)
"""
    found = list(sandboxes["whole"].runs(code, ["a", "b", "c", "d"], replace(limits, wall_seconds=1.0)))
    assert [outcome.value for outcome in found] != ["a\n", "b\n", "c\n", "d\n"]
    assert "b" not in [(outcome.value or "").strip() for outcome in found[1:]]
