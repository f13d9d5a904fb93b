"""What a program gets, what comes back, and what `describe` says."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from mlx_ssd.errors import WorkFailed
from mlx_ssd.grading import Limits, ProcessSandbox
from mlx_ssd.grading.files import remove_tree
from mlx_ssd.grading.probe import programs_running


def returned(sandbox, limits, expression, setup=""):
    [outcome] = sandbox.call(f"{setup}\ndef f():\n    return {expression}", "f", [[]], limits)
    return outcome


SUBCLASSES = """import collections
class Int(int): __repr__ = bit_length = None
class Str(str): __str__ = lambda self: 'y'
class Liar(list):
    __eq__ = lambda *_: True
    __iter__ = lambda _: iter([2])
    __class__ = dict
"""


@pytest.mark.parametrize(
    "expression, value",
    [
        ("None", None),
        ("True", True),
        ("-7", -7),
        ("-(2**64)", -(2**64)),
        ("0.1", 0.1),
        ("float('inf')", float("inf")),
        ("'\\'\"\\n\\x00\\u2028é\\ud800'", "'\"\n\0\u2028é\ud800"),
        ("(1, [2, ()])", (1, [2, ()])),
        ("{'a': {'dict': [1]}, 'int': 'ff'}", {"a": {"dict": [1]}, "int": "ff"}),
        ("{1: 'a', None: 'b', 1.5: 'd', '1': 'e', (1, frozenset({2})): 'f'}",
         {1: "a", None: "b", 1.5: "d", "1": "e", (1, frozenset({2})): "f"}),
        ("{}", {}),
        ("{1, (2, 'x')}", {1, (2, "x")}),
        ("frozenset()", frozenset()),
        ("b'\\x00a'", b"\0a"),
        ("-0.5 + float('inf') * 1j", complex("nan+infj")),
        ("2 - 1j", 2 - 1j),
        # of a subclass what its base type holds
        ("Int(3)", 3),
        ("Str('x')", "x"),
        ("collections.Counter('aab')", {"a": 2, "b": 1}),
        ("collections.defaultdict(list, {1: [2]})", {1: [2]}),
        ("collections.namedtuple('P', 'x y')(1, 2)", (1, 2)),
        ("Liar([1])", [1]),
    ],
)
def test_values_come_back_as_they_are(sandboxes, limits, expression, value):
    outcome = returned(sandboxes["whole"], limits, expression, SUBCLASSES)
    assert (outcome.status, repr(outcome.value)) == ("ok", repr(value))


def test_an_integer_longer_than_python_prints_comes_back(sandboxes, limits):
    assert returned(sandboxes["whole"], limits, "-(10**5000)").value == -(10**5000)


@pytest.mark.parametrize(
    "expression, named",
    [
        ("object()", "object"),
        ("range(3)", "range"),
        ("[(x for x in ())]", "generator"),
        ("{1: len}", "builtin_function_or_method"),
        ("{}.keys()", "dict_keys"),
    ],
)
def test_what_is_no_value_is_named(sandboxes, limits, expression, named):
    outcome = returned(sandboxes["whole"], limits, expression)
    assert (outcome.status, outcome.detail) == ("not_json", f"returned a value of type {named}")


def test_state_is_kept_between_calls_but_arguments_are_fresh(sandbox, limits):
    code = "seen = []\ndef f(x):\n    x.append(1)\n    seen.append(x)\n    return [len(seen), x]"
    argument = [[0]]
    outcomes = list(sandbox.call(code, "f", [argument, argument], limits))
    assert [outcome.value for outcome in outcomes] == [[1, [0, 1]], [2, [0, 1]]]
    assert argument == [[0]]


@pytest.mark.parametrize(
    "code, entry_point",
    [
        ("def f(x): return x", "f"),
        ("class Solution:\n    def f(self, x): return x", "f"),
        ("class Solution:\n    def f(self, x): return x", "Solution.f"),
        ("class Other:\n    @staticmethod\n    def f(x): return x", "Other.f"),
        ("f = lambda x: x\nif __name__ == '__main__': raise SystemExit", "f"),
        (
            "from __future__ import annotations\n"
            "import dataclasses\n@dataclasses.dataclass\nclass A:\n    x: int\n"
            "def f(x): return A(x).x",
            "f",
        ),
    ],
)
def test_entry_points(sandboxes, limits, code, entry_point):
    [outcome] = sandboxes["whole"].call(code, entry_point, [[3]], limits)
    assert (outcome.status, outcome.value) == ("ok", 3)


@pytest.mark.parametrize(
    "code, detail",
    [
        ("def f(x):\n    return 1 / x", "ZeroDivisionError: division by zero (line 2)"),
        ("def g(): pass", "NameError: the program defines no f"),
        ("def f(:", "SyntaxError"),
        ("x = '\0'", "null bytes"),
        ("x = '\ud800'", "surrogates not allowed"),
        ("import numpy", "ModuleNotFoundError"),
    ],
)
def test_errors_say_what_and_where(sandboxes, limits, code, detail):
    [outcome] = sandboxes["whole"].call(code, "f", [[0]], limits)
    assert outcome.status == "error" and detail in outcome.detail


def test_a_script_has_the_standard_streams(sandbox, limits):
    code = """
import sys, os
first = sys.stdin.buffer.readline().decode()
second = input()
rest = sys.stdin.read()
sys.stdout.buffer.write((first + '|' + second + '|' + rest).encode())
print(__name__, os.listdir('.'), sorted(os.environ), sys.argv)
def later():
    print(counter)
counter = 3
import atexit
atexit.register(later)
exit()
"""
    outcome = sandbox.run(code, "a\né\nc\nd", limits)
    environment = ["HOME", "LANG", "PYTHONHASHSEED", "TMPDIR"]
    assert outcome.value == f"a\n|é|c\nd__main__ [] {environment} ['program.py']\n3\n"


@pytest.mark.parametrize(
    "ending, status",
    [
        ("sys.exit(0)", "ok"),
        ("os._exit(0)", "ok"),
        ("sys.exit(3)", "error"),
        ("sys.exit('no')", "error"),
        ("os.abort()", "error"),
    ],
)
def test_a_script_ends_well_only_with_exit_code_0(sandbox, limits, ending, status):
    assert sandbox.run(f"import os, sys\nprint(1, flush=True)\n{ending}", "", limits).status == status


def test_the_time_limit_is_per_call(sandbox, limits):
    limits = replace(limits, wall_seconds=1.0)
    code = "import time\ntime.sleep(0.4)\ndef f(x):\n    time.sleep(x)\n    return x"
    outcomes = list(sandbox.call(code, "f", [[0.4], [0.4], [0.4], [9]], limits))
    assert [outcome.status for outcome in outcomes] == ["ok", "ok", "ok", "timeout"]


def test_processor_time_is_limited_per_call(sandbox, limits):
    limits = replace(limits, wall_seconds=20.0, cpu_seconds=1.0)
    started = time.monotonic()
    [first, second] = sandbox.call("def f(x):\n    while x: pass", "f", [[0], [1]], limits)
    assert (first.status, second.status) == ("ok", "timeout")
    assert "processor" in second.detail and time.monotonic() - started < 15


def test_processor_time_starts_anew_with_each_call(sandboxes, limits):
    code = "import time\ndef f(x):\n    end = time.process_time() + 0.8\n"
    code += "    while time.process_time() < end: pass"
    outcomes = sandboxes["whole"].call(code, "f", [[0]] * 3, replace(limits, wall_seconds=20.0, cpu_seconds=1.0))
    assert [outcome.status for outcome in outcomes] == ["ok"] * 3


def test_the_order_of_a_set_does_not_change_from_run_to_run(sandboxes, limits):
    code = "print(list({chr(c) for c in range(97, 123)}))"
    assert len({sandboxes["whole"].run(code, "", limits).value for _ in range(3)}) == 1


def test_deep_recursion_that_is_meant_works(sandboxes, limits):
    code = """
import sys, functools
sys.setrecursionlimit(10**6)
@functools.cache
def depth(n):
    return 0 if n == 0 else 1 + depth(n - 1)
print(depth(30_000))
"""
    if sys.version_info < (3, 12):  # later versions stop recursion through C at a fixed depth
        assert sandboxes["whole"].run(code, "", limits).value == "30000\n"


def test_closing_the_iterator_ends_the_program(sandbox, limits):
    calls = sandbox.call("import time\ndef f(x):\n    time.sleep(x)", "f", [[0], [60]], limits)
    assert next(calls).status == "ok"
    started = time.monotonic()
    calls.close()
    assert time.monotonic() - started < 1.5


@pytest.mark.parametrize("runs", [1, 2])
@pytest.mark.parametrize("options", [{}, {"warm": False}, {"namespaces": False}])
def test_the_program_dies_with_the_grader(options, runs, tmp_path):
    """The grader itself is killed while a program runs, or a fork of it, and its template with it."""
    code = (
        "from mlx_ssd.grading import *\nsandbox = ProcessSandbox(**%r)\n"
        "next(sandbox.runs('import time; time.sleep(60)', [''] * %d, Limits(60, 60, 256, 64, 4)))" % (options, runs)
    )
    homes = tmp_path / "of the killed"
    homes.mkdir()
    environment = os.environ | {"TMPDIR": str(homes), "PYTHONPATH": os.pathsep.join(sys.path)}
    grader = subprocess.Popen([sys.executable, "-c", code], env=environment)
    wait_for(lambda: programs_running(grader.pid))
    time.sleep(0.3)
    grader.kill()
    grader.wait()
    wait_for(lambda: not programs_running(grader.pid))
    for home in homes.iterdir():
        remove_tree(str(home))


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's signal of a parent's death")
@pytest.mark.parametrize("variant", ["whole", "bare"])
def test_a_run_of_a_script_dies_with_its_template(variant, sandboxes, limits):
    sandbox = sandboxes[variant]
    assert sandbox.run("print(1)", "", limits).status == "ok"
    [*_, template] = sandbox._idle
    runs = sandbox.runs("import time\ninput() or time.sleep(60)", ["a\n", "\n", "\n"], limits)
    assert next(runs).status == "ok"
    wait_for(lambda: len(programs_running(os.getpid())) == 2)
    os.kill(template.pid, signal.SIGKILL)
    assert next(runs).status in ("error", "harness_error")
    wait_for(lambda: not programs_running(os.getpid()))


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_end_of_a_script_is_that_of_an_interpreter(sandbox, limits):
    code = """
import atexit, threading, time
class A:
    def __del__(self): print('finalized')
atexit.register(print, 'atexit')
ended = threading.Event()
threading.Thread(target=lambda: (ended.wait(), time.sleep(0.1), print('thread'))).start()
cycle = A()
cycle.itself = cycle
plain = A()
print('end')
ended.set()
"""
    assert sandbox.run(code, "", limits).value == "end\nthread\natexit\nfinalized\nfinalized\n"


def test_programs_draw_different_numbers(sandbox, limits):
    assert len({sandbox.run("import random\nprint(random.random())", "", limits).value for _ in range(3)}) == 3


def test_the_clock_begins_with_the_program(limits):
    """Not with the one before, which the template shows until the next begins."""
    sandbox, limits = ProcessSandbox(), replace(limits, wall_seconds=1.0)
    for _ in range(2):
        assert sandbox.run("print(1)", "", limits).value == "1\n"
        time.sleep(1.1)


def test_an_idle_template_that_was_killed_is_not_used(limits):
    sandbox = ProcessSandbox()
    for _ in range(2):
        assert sandbox.run("print(1)", "", limits).value == "1\n"
        for template in sandbox._idle:
            os.kill(template.pid, signal.SIGKILL)
            wait_for(lambda template=template: not template.alive())


def test_a_sandbox_that_does_not_start_is_a_harness_error(limits, monkeypatch):
    sandbox = ProcessSandbox()
    monkeypatch.setattr(sandbox, "command", lambda home: [sys.executable, "-c", "raise OSError('no such luck')"])
    outcome = sandbox.run("print(1)", "", limits)
    assert outcome.status == "harness_error" and "no such luck" in outcome.detail
    [outcome] = sandbox.call("def f(): return 1", "f", [[]], limits)
    assert outcome.status == "harness_error"


def test_describe_is_found_by_trying(sandboxes):
    whole, bare = sandboxes["whole"].describe(), sandboxes["bare"].describe()
    for found in (whole, bare):
        assert found["works"] and found["time"] and found["memory"] and found["output"] and found["descendants"]
    assert not bare["network"] and not bare["files_written"] and not bare["files_read"]
    assert whole["network"] == ("net" in whole["namespaces"])
    assert whole["files_written"] == whole["files_read"] == (whole["root"] or whole["landlock"] > 0)
    assert whole["processes"] or not whole["own_uid"] and os.getuid() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's mechanisms")
def test_what_the_system_offers_is_used(sandboxes):
    mechanisms = sandboxes["whole"].mechanisms()
    version = ctypes.CDLL(None).syscall(444, None, 0, 1)  # landlock_create_ruleset(…, VERSION)
    assert mechanisms["landlock"] == max(version, 0)
    if shutil.which("unshare"):
        # Without a preloaded BLAS: its threads would forbid `unshare` a user namespace.
        clean = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
        command = ["unshare", "--user", "--pid", "--net", "--fork", "true"]
        offered = subprocess.run(command, capture_output=True, env=clean)
        assert ("user" in mechanisms["namespaces"]) == (offered.returncode == 0)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's capabilities")
def test_root_has_given_up_its_powers(sandbox, limits):
    outcome = sandbox.run("import os\nopen('x', 'w').close()\nos.chmod('x', 0)\nopen('x')", "", limits)
    assert outcome.detail.startswith("PermissionError")


def test_describe_of_a_sandbox_that_does_not_work(monkeypatch):
    sandbox = ProcessSandbox()
    monkeypatch.setattr(sandbox, "command", lambda home: [sys.executable, "-c", ""])
    found = sandbox.describe()
    assert found["works"] is False and "time" not in found and "level" not in found
    with pytest.raises(WorkFailed, match="the sandbox does not start here .*no program can be graded"):
        sandbox.level()


def test_limits_are_frozen(limits):
    with pytest.raises(AttributeError):
        limits.wall_seconds = 9
    assert isinstance(limits, Limits)
