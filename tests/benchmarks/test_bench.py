"""Bench against mlx_lm's own, and what self-distillation and quantization cost: pages are rendered from their rows."""

import json
import subprocess

import pytest

from benchmarks import bench_rival, cost, journal
from benchmarks.bench_rival import OURS, THEIRS
from mlx_ssd.bench import frontier_words, plots
from mlx_ssd.bench.configurations import Load, Subject
from mlx_ssd.errors import WorkFailed

SUBJECT = Subject("small", "folder", "r")


@pytest.mark.parametrize("module", [bench_rival, cost])
def test_the_page_is_made_of_the_rows(module):
    rows = journal.read(journal.RESULTS / f"{module.NAME}.jsonl")
    assert module.render(rows) == (journal.RESULTS / f"{module.NAME}.md").read_text()


def said(stdout):
    return lambda *_, **__: subprocess.CompletedProcess((), 0, stdout, "no such model")


def test_mlx_lm_s_figures_are_of_the_tokens_after_the_first(monkeypatch):
    line = "Averages: prompt_tps=200.000, generation_tps=50.000, peak_memory=1.0"
    monkeypatch.setattr(subprocess, "run", said(line))
    found = bench_rival.theirs(SUBJECT, Load(100, 10), 3)
    assert found == {"ttft_s": 0.5, "decode_tps": 45.0}  # 10 tokens in 9 steps of 1 / 45 s
    monkeypatch.setattr(subprocess, "run", said("Trial 1"))
    with pytest.raises(WorkFailed, match="no such model"):
        bench_rival.theirs(SUBJECT, Load(100, 10), 3)


def rival(side, number, rate, started="2", **changes):
    made = {"started": started, "command": "c", "commit": "a", "threads": "1", "versions": {"mlx": "1", "mlx-lm": "2"}}
    made |= {"machine": {"chip": "x", "cores": 2}, "model": "m", "prompt": 8, "generated": 4, "load": 0.5}
    return made | {"round": number, "side": side, "decode_tps": rate, "ttft_s": 1 / rate} | changes


def test_ratios_are_of_rounds_of_the_newest_whole_run():
    rows = [rival(OURS, 0, 9.0, "1"), rival(THEIRS, 0, 1.0, "1"), rival(OURS, 1, 9.0, "1"), rival(THEIRS, 1, 1.0, "1")]
    rows += [rival(OURS, 0, 10.0), rival(THEIRS, 0, 5.0), rival(THEIRS, 1, 20.0), rival(OURS, 1, 40.0)]
    rows += [rival(OURS, 0, 7.0, "3"), rival(THEIRS, 0, 7.0, "3"), rival(OURS, 1, 7.0, "3")]  # interrupted
    page = bench_rival.render(rows)
    assert "| m | 8 + 4 | decode tok/s | 25 | 12.5 | 2.000 [2.000, 2.000] | 2 | 0.5 to 0.5 |" in page
    assert "time to first token" in page and "0.500 [0.500, 0.500]" in page


def test_the_documents_quote_the_newest_runs():
    page = (journal.RESULTS.parent.parent / "docs/benchmarks.md").read_text()
    rivals = bench_rival.newest(journal.read(journal.RESULTS / "bench_rival.jsonl"))
    for line in (line for run in rivals for line in bench_rival.lines_of(run)):
        assert line in page
    for run in cost.newest(journal.read(journal.RESULTS / "cost.jsonl")):
        assert cost.ratios(run) in page


def test_the_frontier_s_page_picture_and_quotations_are_of_its_facts(tmp_path):
    facts = json.loads((journal.RESULTS / "frontier.json").read_text())
    page = (journal.RESULTS / "frontier.md").read_text()
    assert frontier_words.markdown(facts) == page
    lines = [line for line in page.splitlines() if line.startswith(("| ", "- "))]
    assert {line["role"] for line in facts["lines"]} == {"base", "student", "larger"} and len(lines) > 8
    root = journal.RESULTS.parent.parent
    assert all(line in (root / "docs/bench.md").read_text() for line in lines)
    quoted = [line for line in lines if line.startswith(("| ", "- base - ", "- student - "))]
    assert all(line in (root / "README.md").read_text() for line in quoted)
    plots.frontier(facts, tmp_path / "frontier.svg")
    assert (tmp_path / "frontier.svg").read_text().count("<path") == (
        (journal.RESULTS / "frontier.svg").read_text().count("<path")
    )
