"""The sampling benchmark measures every engine on the same work, and says when one leaves a token out."""

import json

import pytest

from benchmarks.sampling import __main__ as program
from benchmarks.sampling import engines, experiments, measures, workload
from benchmarks.sampling.parts import MEANING
from benchmarks.sampling.workload import MEDIAN_TOKENS, P95_TOKENS, Subject, lengths, requests_for

TINY = ["--rounds", "1", "--rows", "2", "--requests", "3", "--samples", "2", "--prompt-tokens", "20"]
TINY += ["--new-tokens", "3", "--context", "30", "--steps", "6", "--positions", "10"]


@pytest.fixture(scope="module")
def subject():
    return Subject.load("embedded", "float32", 5)


def test_rows_are_appended_and_rendered(tmp_path, monkeypatch):
    monkeypatch.setattr(workload, "MEDIAN_TOKENS", 4)
    monkeypatch.setattr(workload, "P95_TOKENS", 12)
    options = program.make_parser().parse_args([*TINY, "--out", str(tmp_path)])
    program.run(options)
    rows = [json.loads(line) for line in (tmp_path / "sampling.jsonl").read_text().splitlines()]
    by_experiment = {}
    for row in rows:
        by_experiment.setdefault(row["experiment"], []).append(row)
        assert row["versions"]["mlx"] and row["machine"]["chip"] and row["load"] >= 0
    for name, engines_of_it in (("throughput", 4), ("samples", 3), ("steps", 2)):
        assert len(by_experiment[name]) == engines_of_it
        assert len({row["tokens"] for row in by_experiment[name]}) == 1  # the same work
        assert all(row["seconds"] > 0 and row["peak_bytes"] > row["weight_bytes"] > 0 for row in by_experiment[name])
    for row in by_experiment["steps"]:
        assert 2 <= len(row["milliseconds"]) == len(row["processor_milliseconds"]) <= 6 - 2
        assert min(row["milliseconds"]) > 0
    (parts,) = by_experiment["parts"]
    assert set(parts["milliseconds"]) == set(MEANING) and all(ms > 0 for ms in parts["milliseconds"].values())

    options.experiment, options.rounds = ["throughput"], 2
    monkeypatch.setattr(program.journal.time, "strftime", lambda _: "later")
    program.run(options)
    report = (tmp_path / "sampling.md").read_text()
    assert report.count("## throughput: embedded") == 1 and "rounds: 2." in report  # the newest run
    for contestant in ("| ours | 2 | ", "| ours | 4 | ", "| mlx_lm.batch_generate | 2 | ", "| chunk-and-drain | 16 | "):
        assert contestant in report
    lines = (tmp_path / "sampling.jsonl").read_text().splitlines()
    assert len(lines) == len(rows) + 8
    stopped = program.render([json.loads(line) for line in lines[:-1]])
    assert "rounds: 1." in stopped  # the unfinished round is left out


def test_every_engine_draws_what_it_was_asked_for_past_the_end_of_turn(subject):
    work = requests_for(subject.prompts[:5], [1, 60, 3, 30, 2])
    model = subject.model
    for engine in (
        engines.Ours(model, 2),
        engines.mlx_lm(model, 2),
        engines.chunk_and_drain(model),
        engines.mlx_lm_side_by_side(model, lambda _: None),
    ):
        completions = engine(work)
        engines.check(work, completions, subject.size.vocabulary)
    completions[0].append(3)
    with pytest.raises(AssertionError, match="request 0: 2 of 1 tokens"):
        engines.check(work, completions, subject.size.vocabulary)
    completions[0] = [subject.size.vocabulary]
    with pytest.raises(AssertionError, match="request 0"):
        engines.check(work, completions, subject.size.vocabulary)


def test_lengths_are_as_documented():
    drawn = sorted(lengths(10_000))
    assert drawn[5_000] == pytest.approx(MEDIAN_TOKENS, rel=0.05)
    assert drawn[9_500] == pytest.approx(P95_TOKENS, rel=0.05)
    assert list(lengths(64)) == list(lengths(64))


def test_share_of_the_bandwidth_counts_weights_and_cache(subject, monkeypatch):
    described = {"chip": "Apple M4 Max", "cores": 16}  # 546 GB/s
    monkeypatch.setattr(experiments.machine, "describe", lambda: described)
    size = subject.size
    must = size.weight_bytes + 1000 * size.kv_bytes
    assert experiments.bandwidth_share(size, 4, 1000, 4 * must / 546e9) == pytest.approx(0.25, abs=1e-3)
    described["chip"] = "another"
    assert experiments.bandwidth_share(size, 4, 1000, 1.0) is None


def test_the_documented_measures_are_those_of_the_committed_rows():
    results, docs = program.RESULTS, program.RESULTS.parents[1] / "docs" / "benchmarks.md"

    def rows(name):
        return [json.loads(line) for line in (results / name).read_text().splitlines()]

    assert measures.table(rows("sampling.jsonl"), rows("sampler.jsonl")) in docs.read_text()
    assert (results / "sampling.md").read_text() == program.render(rows("sampling.jsonl"))
