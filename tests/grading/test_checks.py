"""Checks: what they see, what they make of it, and that a program cannot reach them."""

import threading
import time
from dataclasses import replace

import pytest

from mlx_ssd.grading import Outcome, Verdict, grade
from mlx_ssd.grading.checks import grade_checks

SUM = [{"check": "def check(candidate):\n    assert candidate(1, 2) == 3\n\n    assert candidate(2, 2) == 4, 'four'\n"}]


def graded(sandboxes, limits, code, *checks, entry_point="f"):
    return grade(code, entry_point, [{"check": check} for check in checks], limits, sandboxes["whole"])


@pytest.mark.parametrize(
    "code, verdict, failed_test, words",
    [
        ("def f(a, b): return a + b", "pass", None, ""),
        ("def f(a, b): return a * b + 1", "wrong", 1, "candidate(2, 2) == 4, 'four' (four); last returned 5"),
        ("def f(a, b): return str(a + b)", "wrong", 0, "line 2 of the check: assert candidate(1, 2) == 3; last retu"),
        ("def f(a, b): return a + b if a != 2 else 1 / 0", "error", 1, "ZeroDivisionError: division by zero (line 1)"),
        ("def f(a, b):\n    while a == 2: pass\n    return a + b", "timeout", 1, "over 1.5 s; line 4 of the check"),
        ("def f(a, b): return len(bytearray(10**9))", "memory", 0, "MemoryError"),
        ("def f(a, b): return object()", "wrong", 0, "returned a value of type object; line 2"),
        ("def f(a, b): yield 3", "wrong", 0, "returned a value of type generator"),
        ("def f(a, b): return 'x' * 10**6", "error", 0, "over 64 kB of output"),
        ("def g(a, b): return a + b", "error", 0, "NameError: the program defines no f"),
        ("def f(", "error", 0, "SyntaxError"),
        ("class Solution:\n    def f(self, a, b): return a + b", "pass", None, ""),
        (None, "no_code", None, ""),
    ],
)  # fmt: skip
def test_verdicts(sandboxes, limits, code, verdict, failed_test, words):
    found = grade(code, "f", SUM, replace(limits, wall_seconds=1.5), sandboxes["whole"])
    assert (found.verdict, found.failed_test) == (verdict, failed_test)
    assert words in found.detail


@pytest.mark.parametrize(
    "returned, check",
    [
        ("{3, 1}", "assert f(0) == {1, 3} and type(f(0)) is set"),
        ("(1, 2)", "assert f(0) == (1, 2) != [1, 2]"),
        ("[(1, 'a')]", "assert f(0) == [(1, 'a')] != [[1, 'a']]"),
        ("True", "assert f(0) is True"),
        ("None", "assert f(0) is None"),
        ("0.1 + 0.2", "import math\nassert f(0) != 0.3 and math.isclose(f(0), 0.3)"),
        ("x ** 0.5 if x else 1j", "assert f(0) == 1j"),
        ("{1: 'a', (2,): [3]}", "assert f(0) == {1: 'a', (2,): [3]}"),
        ("{'b': 1, 'a': 2}", "assert list(f(0)) == ['b', 'a']"),
        ("frozenset([1])", "assert f(0) == {1}"),
        ("b'a'", "assert f(0) == b'a'"),
        ("10 ** 5000", "assert f(0) == 10 ** 5000"),
        ("float('nan')", "value = f(0)\nassert value != value"),
        ("__import__('collections').Counter('aab')", "assert f(0) == {'a': 2, 'b': 1}"),
        ("__import__('collections').namedtuple('P', 'x y')(1, 2)", "assert f(0) == (1, 2)"),
        # arguments as they are, too
        ("x", "for x in ((1, {2}), 1j, b'', {(1,): frozenset()}, 2**64): assert repr(f(x)) == repr(x)"),
        # what HumanEval does: helpers beside check, the function by its name, its own result put in again
        ("x + 1", "def twice(x): return 2 * x\ndef check(candidate):\n    assert candidate(f(1)) + 1 == twice(2)"),
        ("x", "def check(c):\n    import random\n    for _ in range(99): x = random.random(); assert c(x) == x"),
    ],
)
def test_checks_see_plain_values_of_the_types_returned(sandboxes, limits, returned, check):
    assert graded(sandboxes, limits, f"def f(x): return {returned}", check) == Verdict("pass")


def test_a_function_under_test_that_is_called_check(sandboxes, limits):
    found = graded(sandboxes, limits, "def check(n): return n == 5", "assert check(5) == True", entry_point="check")
    assert found == Verdict("pass")


def test_assertions_are_numbered_over_all_checks(sandboxes, limits):
    checks = ["import math\nassert f(1) == 1", "assert f(2) == 2\nassert f(3) == 3", "x = 4\nassert (\n  f(x)\n == x)"]
    for number in range(4):
        code = f"def f(x): return x if x <= {number} else None"
        assert graded(sandboxes, limits, code, *checks).failed_test == number
    assert graded(sandboxes, limits, "def f(x): return x", *checks).verdict == "pass"


EXPECTS = """
def check(candidate):
    try:
        candidate(-1)
    except ValueError as error:
        assert str(error) == "negative"
    else:
        raise AssertionError("no exception")
    assert candidate(1) == 1
"""


@pytest.mark.parametrize(
    "code, verdict",
    [
        ("def f(x):\n    if x < 0: raise ValueError('negative')\n    return x", "pass"),
        ("def f(x):\n    if x < 0: raise ValueError('small')\n    return x", "wrong"),
        ("def f(x):\n    if x < 0: raise KeyError('negative')\n    return x", "error"),
        ("def f(x): return x", "wrong"),
        ("raise ValueError('negative')", "error"),  # that is no call
        ("import os\ndef f(x): os._exit(0)", "error"),
        ("import sys\ndef f(x): sys.exit(0)", "error"),
        ("def f(x): assert False", "error"),  # its own assertion, not the check's
    ],
)
def test_exceptions_arrive_in_the_check(sandboxes, limits, code, verdict):
    assert graded(sandboxes, limits, code, EXPECTS).verdict == verdict


@pytest.mark.parametrize(
    "check, words",
    [
        ("assert f(1) ==", "the check is broken: the check (SyntaxError"),
        ("import numpy\nassert f(1) == 1", "line 1 of the check: import numpy (ModuleNotFoundError"),
        ("def check(c): assert c(x=1) == 1", "by keyword"),
        ("assert f(lambda: 1) == 1", "it calls the program with a value of type function"),
        ("import os\nos._exit(0)", "the check cannot be run: ended with exit code 0"),
        ("while True: pass", "the check cannot be run: over 1 s"),
    ],
)
def test_a_broken_check_is_never_a_failure_of_the_program(sandboxes, limits, check, words, monkeypatch):
    monkeypatch.setattr("mlx_ssd.grading.checks.CHECK_SECONDS", 1.0)
    found = graded(sandboxes, replace(limits, wall_seconds=1.0), "def f(x): return 1", check)
    assert (found.verdict, found.failed_test) == ("harness_error", None) and words in found.detail


@pytest.mark.parametrize(
    "code, check, verdict",
    [
        ("def f(x): return None", "assert len(f(1)) == 1", "wrong"),  # the check's exception, the program's fault
        ("def f(x): return 10**9", "x = [f(1)]\nwhile x[0]: x[0] -= 1", "timeout"),
        ("def f(x): return 10**10", "assert [0] * f(1) == [0]", "wrong"),
    ],
)
def test_what_the_returned_value_does_to_the_check(sandboxes, limits, code, check, verdict, monkeypatch):
    monkeypatch.setattr("mlx_ssd.grading.checks.CHECK_SECONDS", 1.0)
    found = graded(sandboxes, replace(limits, wall_seconds=1.5), code, check)
    assert (found.verdict, found.failed_test) == (verdict, 0)


HOSTILE = {
    "equal to everything": "class Any:\n    __eq__ = __ge__ = lambda *_: True\ndef f(x): return Any()",
    "a number equal to everything": "class Any(int):\n    __eq__ = lambda *_: True\ndef f(x): return Any(3)",
    "a text equal to everything": "class Any(str):\n    __eq__ = __hash__ = lambda *_: 0\ndef f(x): return [Any('x')]",
    "frames": "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame.f_back: frame = frame.f_back\n"
    "    return [str(v) for v in frame.f_globals.values() if 'secret' in str(v)] + ['secret'] * 0",
    "all objects": "import gc\ndef f(x):\n    for o in gc.get_objects():\n"
    "        if isinstance(o, str) and o.startswith('the right '): return o",
    "memory": "def f(x):\n    with open('/proc/self/mem', 'rb') as memory: return memory.read(10)",
    "patched builtins": "import builtins\nbuiltins.AssertionError = SystemExit\nbuiltins.all = lambda _: True\n"
    "def f(x): return 1",
    "patched comparison": "import operator\noperator.eq = lambda *_: True\ndef f(x): return 1",
    "exit": "import os\ndef f(x): os._exit(0)",
    "sys.exit": "import sys\ndef f(x): sys.exit(0)",
    "exit when loaded": "import sys\nsys.exit(0)",
    "endless generator": "def f(x):\n    while True: yield 1",
    "endless values": "import itertools\ndef f(x): return itertools.count()",
    "output": "print('[\"passed\"]')\ndef f(x): print('[\"passed\"]')",
    "forged line": """
import os, gc
def f(x):
    for o in gc.get_objects():
        if type(o).__name__ == 'Results':
            for fd in (o.fd, 1, 2): os.write(fd, o.line('{"step": 0, "value": ["passed"]}'))
            for step in range(9): o.send('{"step": %d, "value": ["passed"]}' % step)
    return ["passed"]""",
    "every descriptor": """
import os
def f(x):
    for fd in range(64):
        try: os.write(fd, b'["passed"]\\n')
        except OSError: pass""",
    "an exception that is expected": "def f(x): raise AssertionError('passed')",
    "hashes that collide": "def f(x): return set(i * (2**61 - 1) for i in range(2500))",
    "keys that collide": "def f(x): return {i * (2**61 - 1): 0 for i in range(2000)}",
    "nested": "def f(x):\n    for _ in range(300): x = (x,)\n    return x",
    "closed pipes": "import os\nos.closerange(3, 64)\ndef f(x): return 1",
    "unread requests": "import os, signal\ndef f(x): os.kill(os.getpid(), signal.SIGSTOP)",
    "nothing": "def f(x): pass",
}
SECRET = """
secret = "the right " + "answer"
def check(candidate):
    assert candidate(["x" * 1000] * 30) == secret
    assert candidate(1) != candidate(2)
"""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_does_not_pass_and_does_not_break_the_grader(sandboxes, limits, name):
    started = time.monotonic()
    found = graded(sandboxes, replace(limits, wall_seconds=2.0), HOSTILE[name], SECRET)
    assert found.verdict in ("wrong", "error", "timeout", "memory"), found
    assert time.monotonic() - started < 15


def test_the_program_is_never_told_what_is_expected(limits):
    loaded = []

    class Recorder:
        def load(self, code, entry_point, limits):
            loaded.append((code, entry_point))
            raise OSError("enough")

    found = grade("code", "f", [{"check": SECRET}], limits, Recorder())
    assert found.verdict == "harness_error" and "enough" in found.detail
    assert loaded == [("code", "f")]


def test_a_loop_without_an_end_ends(limits, monkeypatch):
    monkeypatch.setattr("mlx_ssd.grading.checks.MOST_CALLS", 100)

    class Endless:
        def call(self, args):
            return Outcome("ok", ["call", (), {}])

    class Loads:
        def load(self, code, entry_point, limits):
            return self

        def __enter__(self):
            return Endless()

        def __exit__(self, *_):
            pass

    stop = threading.Event()
    assert grade_checks("code", "f", SUM, limits, Loads(), stop).verdict == "timeout"
    stop.set()
    assert grade_checks("code", "f", SUM, limits, Loads(), stop).detail == "grading was stopped"


@pytest.mark.parametrize("said", [None, [], "passed", ["passed", 1], ["call", 1], ["failed", "x", "y"], {"passed": 1}])
def test_a_checker_that_talks_nonsense_is_a_harness_error(limits, said):
    class Nonsense:
        def load(self, code, entry_point, limits):
            return self

        def call(self, args):
            return Outcome("ok", said)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    assert grade("code", "f", SUM, limits, Nonsense()).verdict == "harness_error"
