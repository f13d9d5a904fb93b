"""The table of benchmarks/probe_check.py, from rows as it writes them."""

import json

import pytest

from benchmarks.probe_check import RESULTS, inside, table


def row(base, policy, low, high, trained):
    interval = {"mean": (low + high) / 2, "low": low, "high": high}
    return {
        "base": base,
        "policy": policy,
        "prompts": 400,
        "t_eval": 0.9,
        "probe": {"problems": 100, "samples_per_problem": 5},
        "test": {"problems": 240, "samples_per_problem": 8},
        "room": interval,
        "predicted": interval,
        "trained": {"mean": trained, "low": trained - 0.01, "high": trained + 0.01},
        "two_stage": 0.06,
    }


@pytest.mark.parametrize(
    "trained, expected", [(0.0, True), (0.05, True), (0.07, True), (-0.001, False), (0.071, False)]
)
def test_inside_is_about_the_estimate_and_includes_the_ends(trained, expected):
    assert inside(row(0, "a", 0.0, 0.07, trained)) == expected


def test_table_counts_what_lies_inside():
    text = table([row(0, "a", 0, 0.07, 0.05), row(1, "b", 0, 0.07, 0.09), row(2, "c", -0.02, 0.01, -0.011)])
    assert "lies inside the probe's interval in 2 of 3" in text
    assert "| 1 | b | 0.9 | +3.5 [+0.0, +7.0] | +3.5 [+0.0, +7.0] | +9.0 [+8.0, +10.0] | +6.0 | no |" in text


def test_the_committed_table_is_that_of_the_committed_rows():
    rows = [json.loads(line) for line in (RESULTS / "probe_check.jsonl").read_text().splitlines()]
    assert {row["base"] for row in rows} == {0, 1, 2} and len(rows) == 6
    assert (RESULTS / "probe_check.md").read_text() == table(rows)
