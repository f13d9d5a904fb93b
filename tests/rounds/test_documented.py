"""docs/rounds.md says what the committed rows say."""

from pathlib import Path

import pytest

from benchmarks.effect.report import plain, read, signed
from benchmarks.schedules.report import ROUND_0, Results

ROOT = Path(__file__).parents[2]
PAGE = " ".join((ROOT / "docs" / "rounds.md").read_text(encoding="utf-8").split())


@pytest.fixture(scope="module")
def results():
    return Results(read(ROOT / "benchmarks" / "results" / "schedules.jsonl"))


@pytest.mark.parametrize("schedule", ["paper", "student", "falling", "base-fresh"])
def test_the_table(results, schedule):
    later = [signed(results.between((schedule, n), (schedule, 1)).whole) for n in (2, 3)]
    values = results.of_test(results.kept(schedule), 1)
    best = results.compare(values, results.of_test(results.controls(schedule)["base at its best"], 1))
    assert f"| {' | '.join([*later, signed(best.whole)])} |" in PAGE


def test_what_the_probe_foretold_and_what_came():
    said = (ROOT / "benchmarks" / "results" / "two_rounds.txt").read_text(encoding="utf-8")
    for start, figure in (
        ("A second round at T 1 adds", "+4.8 [+1.6, +7.9]"),
        ("A student of these two rounds is expected to show", "+6.4 [+2.1, +10.6]"),
        ("│ student - base-best  │", "+6.2 [+3.6, +8.8]"),
        ("│ student - 3-stage    │", "+0.4 [-1.8, +2.6]"),
        ("│ student, round 2 (kept) │ 1.35 │ 71.5 [65.5, 77.2] │", "+1.2 [-2.5, +5.0]"),
    ):
        assert f"{start} {figure}" in said and figure in PAGE


def test_the_sentences(results):
    further = results.between(("falling", 2), ("falling", 1))
    assert f"on each base ({', '.join(f'{mean:+.1f}' for mean in further.by_base)})" in PAGE
    assert f"({signed(results.between(('falling', 3), ('falling', 2)).whole)} to the second)" in PAGE
    assert f"it is {signed(results.between(('student', 1), ROUND_0).whole)} points" in PAGE
    rules = [results.composed["test", "falling", 2][place] for place in range(3)]
    kept, best = results.kept("falling"), results.controls("falling")["base at its best"]
    rule, student, base = (results.of_test(rows, 1) for rows in (rules, kept, best))
    assert f"{plain(results.interval(rule))} % of the test problems" in PAGE
    assert f"{signed(results.compare(rule, base).whole)} points more than the base at its best" in PAGE
    assert f"the student less that rule is {signed(results.compare(student, rule).whole)}." in PAGE
    alone = results.of_test(results.controls("falling")["two-stage decoding"], 1)
    assert f"*falling*, below, is {signed(results.compare(student, alone).whole)} points above these" in PAGE
    fresh = results.of_test(results.kept("base-fresh"), 1)
    two_stage = results.of_test(results.controls("base-fresh")["two-stage decoding"], 1)
    assert f"two-stage decoding ({signed(results.compare(fresh, two_stage).whole)})" in PAGE
