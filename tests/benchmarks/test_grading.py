"""The grading benchmark gives both contestants the same work, and the page quotes its rows."""

import pytest

from benchmarks import grading, journal

TINY = ["--tests", "40", "--rounds", "1", "--programs", "20"]


@pytest.fixture
def rows(tmp_path, monkeypatch):
    monkeypatch.setattr(grading, "ENDLESS_LIMIT", 0.5)
    grading.run(grading.make_parser().parse_args([*TINY, "--out", str(tmp_path)]))
    return journal.read(tmp_path / "grading.jsonl"), (tmp_path / "grading.md").read_text()


def test_rows_are_appended_rendered_and_measured(rows):
    rows, page = rows
    ours, fresh, endless = rows
    assert (ours["engine"], ours["tests"]) == (grading.OURS, 40)
    assert (fresh["engine"], fresh["tests"]) == (grading.FRESH, 4)
    assert (endless["programs"], endless["endless"]) == (20, 1)
    assert endless["seconds"] >= 0.5
    for row in rows:
        assert row["seconds"] > 0 and row["processor_seconds"] > 0 and row["load"] >= 0
        assert row["versions"]["python"] and row["machine"]["chip"] and row["command"]
    table = grading.table(rows)
    assert "| tests a second | a fresh python a test | 10 | " in table
    assert "| time of 20 programs, 1 of them endless | what their limits cost | at most 1.3 | " in table
    assert table in page


def test_ratios_are_of_the_newest_run_and_of_whole_rounds():
    common = {"machine": {"chip": "x"}, "model": "m", "experiment": "tests", "started": "2"}

    def row(engine, number, tests, seconds, **fields):
        of_one = {"engine": engine, "round": number, "tests": tests, "seconds": seconds, "processor_seconds": seconds}
        return common | of_one | fields

    rows = [row(grading.OURS, 0, 100, 99.0, started="1")]
    rows += [row(grading.OURS, 0, 100, 1.0), row(grading.FRESH, 0, 10, 1.0)]
    rows += [row(grading.OURS, 1, 100, 1.0), row(grading.FRESH, 1, 10, 2.0)]
    rows += [row(grading.OURS, 2, 100, 50.0)]  # the program was stopped in this round
    assert "| 10 | 15.00 [10.00, 20.00] |" in grading.table(rows)


@pytest.mark.skipif(not (journal.RESULTS / "grading.jsonl").exists(), reason="not measured yet")
def test_the_documented_measures_are_those_of_the_committed_rows():
    rows = journal.read(journal.RESULTS / "grading.jsonl")
    docs = journal.RESULTS.parents[1] / "docs" / "benchmarks.md"
    assert grading.table(rows) in docs.read_text()
    assert (journal.RESULTS / "grading.md").read_text() == grading.render(rows)
