import contextlib
import time
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.grading import Outcome, Verdict, check_canaries, grade, grade_many
from mlx_ssd.records import Grade

CALLS = [{"args": [1, 2], "expected": 3}, {"args": [2, 2], "expected": 4}, {"args": [0, 0], "expected": 0}]
LINES = [{"stdin": "1 2\n", "stdout": "3\n"}, {"stdin": "2 2\n", "stdout": "4"}]


class Recorder:
    """Gives prepared outcomes and notes what it was handed."""

    def __init__(self, *outcomes):
        self.outcomes, self.handed = outcomes, []

    def call(self, code, entry_point, calls, limits):
        self.handed.append((code, entry_point, calls))
        yield from self.outcomes

    def runs(self, code, stdins, limits):
        self.handed.append((code, stdins))
        yield from self.outcomes


@pytest.mark.parametrize(
    "code, verdict, failed_test",
    [
        ("def f(a, b): return a + b", "pass", None),
        ("def f(a, b): return a * b + 1", "wrong", 1),
        ("def f(a, b): return {a + b}", "wrong", 0),
        ("def f(a, b): return a + b if a != 2 else 1 / 0", "error", 1),
        ("def f(a, b):\n    while a == 2: pass\n    return a + b", "timeout", 1),
        ("def f(a, b): return a + b if a != 2 else len(bytearray(10**9))", "memory", 1),
        ("raise ValueError", "error", 0),
        ("def f(", "error", 0),
        (None, "no_code", None),
    ],
)
def test_verdicts_of_functions(sandboxes, limits, code, verdict, failed_test):
    found = grade(code, "f", CALLS, replace(limits, wall_seconds=1.5), sandboxes["whole"])
    assert (found.verdict, found.failed_test) == (verdict, failed_test)


@pytest.mark.parametrize(
    "code, verdict, failed_test",
    [
        ("a, b = map(int, input().split())\nprint(a + b)", "pass", None),
        ("print(3)", "wrong", 1),
        ("print(3)\nimport sys\nsys.exit(input() == '2 2')", "error", 1),
        ("print(3)\nline = input()\nwhile line == '2 2': pass", "timeout", 1),
        ("print(input() and 3)\ninput()", "error", 0),
        ("while True: pass", "timeout", 0),
        (None, "no_code", None),
    ],
)
def test_verdicts_of_scripts(sandboxes, limits, code, verdict, failed_test):
    found = grade(code, None, LINES, replace(limits, wall_seconds=1.0), sandboxes["whole"])
    assert (found.verdict, found.failed_test) == (verdict, failed_test)


@pytest.mark.parametrize("tests", [CALLS, [{"check": "assert f(1, 2) == 3"}]], ids=["calls", "check"])
def test_what_a_program_says_can_be_written_down(sandboxes, limits, tests):
    found = grade("def f(a, b): raise ValueError('\\ud800')", "f", tests, limits, sandboxes["whole"])
    assert found.detail.startswith("ValueError: \\ud800 (line 1)")
    assert "ud800" in Grade(problem_id="x", sample_index=0, **asdict(found)).line()


def test_the_sandbox_is_told_inputs_only(limits):
    recorder = Recorder(Outcome("ok", 3), Outcome("ok", 4), Outcome("ok", 0))
    assert grade("code", "f", CALLS, limits, recorder) == Verdict("pass")
    assert recorder.handed == [("code", "f", [[1, 2], [2, 2], [0, 0]])]
    recorder = Recorder(Outcome("ok", "3"), Outcome("ok", "4"))
    assert grade("code", None, LINES, limits, recorder) == Verdict("pass")
    assert recorder.handed == [("code", ["1 2\n", "2 2\n"])]


def test_the_first_failure_stops_the_program(limits):
    recorder = Recorder(Outcome("ok", "4"), Outcome("ok", "4"))
    assert grade("code", None, LINES, limits, recorder).failed_test == 0
    assert len(recorder.handed) == 1


def test_a_sandbox_that_fails_is_never_a_failure_of_the_program(limits):
    class Broken:
        def call(self, *_):
            raise OSError("no more processes")

    for sandbox in (Recorder(Outcome("ok", 3), Outcome("harness_error", detail="x")), Recorder(), Broken()):
        found = grade("code", "f", CALLS, limits, sandbox)
        assert (found.verdict, found.failed_test) == ("harness_error", None)


@pytest.mark.parametrize(
    "entry_point, tests",
    [("f", []), ("f", [{"args": [1]}]), ("f", CALLS + LINES), (None, CALLS), ("", CALLS)],
)
def test_bad_tests(limits, entry_point, tests):
    with pytest.raises(BadInput):
        grade("code", entry_point, tests, limits, Recorder())


@pytest.mark.parametrize("variant", ["whole", "no-namespaces", "bare"])
def test_canaries_pass(sandboxes, variant, limits):
    check_canaries(sandboxes[variant], limits)


@pytest.mark.parametrize(
    "lie", [Outcome("ok", 42), Outcome("ok", None), Outcome("error"), Outcome("harness_error")]
)
def test_canaries_notice_a_grader_that_always_says_the_same(limits, lie):
    class Liar(Recorder):
        def runs(self, code, stdins, limits):
            yield replace(self.outcomes[0], value=str(self.outcomes[0].value))

        @contextlib.contextmanager
        def load(self, code, entry_point, limits):
            yield SimpleNamespace(call=lambda args: self.outcomes[0])

    with pytest.raises(WorkFailed):
        check_canaries(Liar(lie), limits)


def test_grade_many_runs_the_same_program_once(limits):
    recorder = Recorder(*[Outcome("ok", test["expected"]) for test in CALLS])
    items = [
        (0, "x", "f", CALLS),
        (1, "y", "f", CALLS),
        (2, "x", "f", list(CALLS)),
        (3, None, "f", CALLS),
        (4, "x", "f", CALLS[:1]),
    ]
    verdicts = dict(grade_many(items, limits, recorder, workers=2))
    assert {key: found.verdict for key, found in verdicts.items()} == {
        0: "pass",
        1: "pass",
        2: "pass",
        3: "no_code",
        4: "pass",
    }
    assert sorted(code for code, *_ in recorder.handed) == [
        "x",
        "x",
        "y",
    ]  # x twice: with other tests the last time


def test_grade_many_gives_verdicts_in_order_of_completion(sandboxes, limits):
    slow = "import time\ntime.sleep(1.5)\ndef f(a, b): return a + b"
    items = [("slow", slow, "f", CALLS)] + [
        (i, f"def f(a, b): return a + b + {i}", "f", CALLS) for i in range(6)
    ]
    found = list(grade_many(iter(items), limits, sandboxes["whole"], workers=2))
    assert found[-1][0] == "slow"
    assert {key for key, verdict in found if verdict.verdict == "pass"} == {"slow", 0}


def test_closing_grade_many_ends_the_rest(sandboxes, limits):
    """What runs ends at its current test, what waits never starts; `nothing_is_left` looks on."""
    code = "import time\ndef f(a, b):\n    time.sleep(0.5)\n    return a + b"
    items = [("quick", None, "f", CALLS)] + [(i, f"{code} # {i}", "f", CALLS[:1] * 20) for i in range(20)]
    verdicts = grade_many(items, limits, sandboxes["whole"], workers=2)
    assert next(verdicts)[0] == "quick"
    started = time.monotonic()
    verdicts.close()
    assert time.monotonic() - started < 5


def test_bad_tests_among_many_are_raised(limits):
    with pytest.raises(BadInput):
        list(grade_many([("a", "x", "f", [{"args": [1]}])], limits, Recorder(), workers=1))
