"""The benchmark of ranks compares runs of one round, counts every fault, and the page quotes its rows."""

import pytest

from benchmarks import journal, ranks

COMMON = {"machine": {"chip": "x"}, "model": "m", "started": "2"}


def speed(number, contestant, seconds, **others):
    return COMMON | {"experiment": "speed", "round": number, "contestant": contestant, "seconds": seconds} | others


def kill(number, **others):
    fine = {"hit": True, "code": 0, "silence": 1.0 + number, "samples": 60, "lost": 0, "doubled": 0, "differ": 0}
    return COMMON | {"experiment": "kills", "round": number} | fine | others


def test_ratios_are_of_one_round_and_of_the_newest_run():
    rows = [speed(0, ranks.ONE, 99.0, started="1")]
    for number, factor in ((0, 2.0), (1, 1.5)):
        rows += [speed(number, ranks.ONE, 10 * factor), speed(number, ranks.TWO, 10), speed(number, ranks.THREADS, 12)]
        rows.append(speed(number, ranks.HALVES, 8))
    rows += [speed(2, ranks.ONE, 1.0)]  # the program was stopped in this round
    table = ranks.table(rows)
    assert "| one rank | 1.6 | 1.75 [1.50, 2.00] |" in table
    assert "| one rank, two threads |  | 1.20 [1.20, 1.20] |" in table
    assert "half the problems each | one rank |  | 2.19 [1.88, 2.50] |" in table


@pytest.mark.parametrize("field", ["lost", "doubled", "differ"])
def test_every_fault_counts(field):
    assert "1 ranks killed or stopped at work: samples lost, doubled or different | 60 of one" in ranks.table([kill(0)])
    assert "| 0 | 0 |" in ranks.table([kill(0)])
    assert "| 0 | 3 |" in ranks.table([kill(0), kill(1, **{field: 3})])


def test_a_run_that_did_not_end_and_a_kill_that_hit_nothing_show():
    table = ranks.table([kill(0), kill(1, hit=False), kill(2, code=None)])
    assert "2 ranks killed" in table and "3.0 s, and not all ended" in table


def test_kills_are_counted_by_victim():
    rows = [kill(n, victim=victim, lost=n) for n, victim in enumerate(ranks.VICTIMS)]
    rows.append(kill(5, victim=ranks.RANK_0, hit=False, code=1))
    table = ranks.by_victim(rows)
    assert "| rank 0's process | 2 | 1 | 1 | 1 | 0 | 0 | 6.0 s |" in table
    assert "| **all** | 5 | 4 | 4 | 6 | 0 | 0 | 6.0 s |" in table


def test_what_is_lost_doubled_or_different_is_found(tmp_path):
    journal_file = tmp_path / "round-1" / "samples.jsonl"
    journal_file.parent.mkdir()
    lines = [f'{{"problem_id":"p","sample_index":{i},"x":0}}'.encode() for i in range(4)]
    journal_file.write_bytes(b"\n".join([lines[0], lines[0], lines[1].replace(b'"x":0', b'"x":1'), lines[3]]))
    found = ranks._compared(tmp_path, b"\n".join(lines))
    assert found == {"samples": 4, "lost": 1, "doubled": 1, "differ": 1}


@pytest.mark.skipif(not (journal.RESULTS / "ranks.jsonl").exists(), reason="not measured yet")
def test_the_documented_measures_are_those_of_the_committed_rows():
    rows = journal.read(journal.RESULTS / "ranks.jsonl")
    docs = journal.RESULTS.parents[1] / "docs"
    assert ranks.table(rows) in (docs / "benchmarks.md").read_text()
    assert ranks.by_victim(rows) in (docs / "reliability.md").read_text()
    assert (journal.RESULTS / "ranks.md").read_text() == ranks.render(rows)
