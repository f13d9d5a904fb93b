import sqlite3
from dataclasses import replace

import pytest

from mlx_ssd.errors import WorkFailed
from mlx_ssd.grading import GradeCache, Outcome, ProcessSandbox, Verdict, grade_answers, grade_many
from mlx_ssd.records import Problem

TESTS = [{"args": [1], "expected": 2}]
ITEMS = [("right", "def f(x): return x + 1", "f", TESTS), ("wrong", "def f(x): return x", "f", TESTS)]


class Counting:
    """Runs nothing: the program's text is the value that it returns."""

    def __init__(self):
        self.run = []

    def call(self, code, entry_point, calls, limits):
        self.run.append(code)
        status = {"slow": "timeout", "big": "memory", "broken": "harness_error"}.get(code, "ok")
        yield Outcome(status, 2 if code.endswith("+ 1") else 0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MLX_SSD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def graded(items, limits, mechanisms=None):
    sandbox = Counting()
    with GradeCache(limits, mechanisms or {}) as cache:
        verdicts = dict(grade_many(items, limits, sandbox, 2, cache))
    return verdicts, sorted(sandbox.run)


def test_what_was_graded_is_not_run_again(folder, limits):
    first, run = graded(ITEMS, limits)
    assert {key: verdict.verdict for key, verdict in first.items()} == {"right": "pass", "wrong": "wrong"}
    assert len(run) == 2
    again, run = graded([*ITEMS, ("new", "x", "f", TESTS)], limits)
    assert run == ["x"]
    assert {key: again[key] for key in first} == first


@pytest.mark.parametrize("what", ["program", "entry point", "tests", "limits", "sandbox", "grader"])
def test_a_verdict_holds_for_the_same_program_tests_limits_and_grader_only(folder, limits, monkeypatch, what):
    graded(ITEMS[:1], limits)
    (_, code, entry_point, tests), mechanisms = ITEMS[0], {}
    if what == "program":
        code = "# \n" + code
    elif what == "entry point":
        entry_point = "g"
    elif what == "tests":
        tests = [{"args": [1], "expected": 2}, {"args": [2], "expected": 2}]
    elif what == "limits":
        limits = replace(limits, memory_mb=limits.memory_mb + 1)
    elif what == "sandbox":
        mechanisms = {"landlock": 7}
    else:
        monkeypatch.setattr("mlx_ssd.grading.cache._source", lambda: "another grader")
    assert graded([("key", code, entry_point, tests)], limits, mechanisms)[1] == [code]


def test_what_the_machine_may_have_caused_is_not_kept(folder, limits):
    items = [(code, code, "f", TESTS) for code in ("slow", "big", "broken")]
    assert graded(items, limits)[1] == graded(items, limits)[1] == ["big", "broken", "slow"]


def test_nothing_is_kept_where_the_folder_is_none(limits, monkeypatch, tmp_path):
    monkeypatch.setenv("MLX_SSD_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert len(graded(ITEMS, limits)[1]) == len(graded(ITEMS, limits)[1]) == 2
    assert not (tmp_path / "home").exists()


def test_a_damaged_file_costs_a_note_and_nothing_else(folder, limits):
    folder.mkdir()
    (folder / "grades.sqlite").write_bytes(b"not a data base" * 100)
    with pytest.warns(UserWarning, match="grades are not kept for other runs"):
        verdicts, run = graded(ITEMS, limits)
    assert len(run) == 2 and verdicts["right"].verdict == "pass"


def test_verdicts_are_on_disk_however_the_grading_ends(folder, limits):
    cache = GradeCache(limits, {})
    with pytest.raises(KeyboardInterrupt), cache:
        cache.put(cache.key("job"), Verdict("error", 0, "why"))
        raise KeyboardInterrupt
    with GradeCache(limits, {}) as again:
        assert again.get(again.key("job")) == Verdict("error", 0, "why")


def test_two_gradings_side_by_side_share_the_file(folder, limits):
    with GradeCache(limits, {}) as one, GradeCache(limits, {}) as other:
        one.put(one.key(1), Verdict("pass"))
        other.put(other.key(2), Verdict("pass"))
    (count,) = sqlite3.connect(folder / "grades.sqlite").execute("SELECT count(*) FROM grades").fetchone()
    assert count == 2


def test_answers_are_extracted_and_put_behind_the_preamble(folder, limits):
    tested = Problem(id="a", prompt="p", entry_point="f", tests=TESTS, preamble="from math import comb")
    free = Problem(id="b", prompt="p")
    fenced = "```python\ndef f(x): return comb(x + 1, 1)\n```"
    answers = [("right", tested, fenced), ("bare", tested, "f"), ("free", free, fenced), ("talk", free, "well")]
    names = {key: verdict.verdict for key, verdict in grade_answers(answers, limits, 2, ProcessSandbox())}
    assert names == {"right": "pass", "bare": "no_code", "free": "ungraded", "talk": "no_code"}


def test_a_grader_that_fails_is_stopped(limits, monkeypatch):
    class Broken(Counting):
        def mechanisms(self):
            return {}

        def call(self, code, entry_point, calls, limits):
            yield Outcome("harness_error", detail="no process")

    monkeypatch.setattr("mlx_ssd.grading.texts.check_canaries", lambda *_: None)
    problem = Problem(id="a", prompt="p", entry_point="f", tests=TESTS)
    with pytest.raises(WorkFailed, match="no process"):
        list(grade_answers([(1, problem, "```python\nx\n```")], limits, 1, Broken()))
