"""The rows of `python -m benchmarks.reliability` that are committed, and the tables of docs/reliability.md."""

from pathlib import Path

import pytest

from benchmarks import journal, reliability
from benchmarks.reliability_report import latest, render

ROWS = journal.read(journal.RESULTS / "reliability.jsonl")
DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"


def test_every_fault_struck_every_long_stage_and_nothing_was_lost():
    rows = latest(ROWS, "faults")
    assert {(row["stage"], row["fault"]) for row in rows if row["hit"]} == {
        (stage, fault) for stage in reliability.GROWS for fault in reliability.FAULTS
    }
    for row in rows:
        assert row["differs"] == [] and row["orphans"] == 0 and row["exit_codes"][-1] == 0, row
        # What did not go on by itself was killed with its parent, or said what to do.
        assert row["exit_codes"][0] in (0, -9) or any("the same command" in said for said in row["said"]), row


def test_a_limit_of_memory_was_obeyed_and_a_budget_beyond_it_survived():
    for row in latest(ROWS, "limit"):
        assert row["peak_bytes"] <= row["limit_bytes"] and row["exit_codes"] == [0], row
        assert row["kills"] == row["failures"] and (row["kills"] > 0) == (row["asked_gb"] is not None), row


@pytest.mark.parametrize("line", [line for line in render(ROWS).splitlines() if line.startswith("|")])
def test_the_document_has_the_table(line):
    assert line in DOCUMENT.read_text()


def test_rows_name_no_place_of_the_machine_they_were_made_on():
    for row in ROWS:
        assert not any(place in str(row) for place in ("/tmp", "/home", "/work", "/root"))
