"""The training benchmark gives every trainer the same work, and counts what each does with it."""

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from benchmarks import journal
from benchmarks.sampling import workload as sampling_workload
from benchmarks.sampling.workload import Subject
from benchmarks.training import __main__ as program
from benchmarks.training import attention, experiments, head, measures, trainers, workload
from benchmarks.training.head import Case
from benchmarks.training.trainers import MlxLm, Ours
from mlx_ssd.training.rows import length

TINY = ["--rounds", "1", "--samples", "16", "--row-tokens", "256", "--batch-sizes", "4", "8"]
TINY_LAYERS = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
TINY_LAYERS |= {"head_dim": 16, "num_hidden_layers": 1, "vocab_size": 704}


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(sampling_workload, "MEDIAN_TOKENS", 4)
    monkeypatch.setattr(sampling_workload, "P95_TOKENS", 12)


@pytest.fixture
def tiny_layers(monkeypatch):
    monkeypatch.setattr(workload, "FOUR_LAYERS_CONFIG", workload.FOUR_LAYERS_CONFIG | TINY_LAYERS)


@pytest.fixture
def subject():
    return Subject.load("embedded", "float32", 20)


def test_rows_are_appended_rendered_and_measured(tmp_path, monkeypatch, short, tiny_layers):
    monkeypatch.setattr(head, "CASES", (Case(8, 16, 64), Case(8, 64, 64, bits=4), Case(8, 64, 64, bits=8)))
    monkeypatch.setattr(attention, "CASES", (attention.Case(300, 2, 1, 8),))
    program.run(program.make_parser().parse_args([*TINY, "--out", str(tmp_path)]))
    rows = journal.read(tmp_path / "training.jsonl")
    runs = {}
    for row in rows:
        runs.setdefault((row["experiment"], row["model"]), []).append(row)
        assert row["versions"]["mlx-lm"] and row["machine"]["chip"] and row["load"] >= 0
    models = ["embedded", workload.FOUR_LAYERS]
    for experiment, contestants in (("throughput", 3), ("targets", 2)):
        for model in models:
            run = runs[experiment, model]
            assert len(run) == contestants
            assert len({row["completion_tokens"] for row in run}) == 1  # the same work
            assert all(row["seconds"] > 0 and row["peak_bytes"] > row["weight_bytes"] > 0 for row in run)
    assert set(runs["throughput", "embedded"][0]["tried"]) == {"4", "8"}
    assert len(runs["loss", "output heads"]) == 3 * 2 and len(runs["packing", "embedded"]) == 4

    compared = {row["engine"]: row for row in runs["attention", "attention"]}
    assert len(compared) == 2 and all(row["gradient_difference"] < 1e-4 for row in compared.values())

    report = (tmp_path / "training.md").read_text()
    for model in models:
        assert f"## throughput: {model}, " in report and f"## targets: {model}, " in report
    table = measures.table(rows)
    for line in ("| completion tokens/s, embedded | mlx_lm, defaults, batches of 4 | 2 | ", "| time of the same | "):
        assert line in table
    assert "| a step with soft targets, qwen3-0.6b-4-layers | with tokens | at most 1.6 | " in table
    stopped = [row for row in rows if row["engine"] != experiments.BEST]
    assert "| mlx_lm, defaults | 4 | " in program.render(stopped)


def test_every_trainer_trains_every_token_once_and_leaves_the_model_as_it_was(subject, short):
    rows = workload.training_rows(subject, 32, order=0)
    tokens = sum(len(row.completion_ids) for row in rows)
    before = dict(tree_flatten(subject.model.parameters()))
    contestants = (Ours(256), Ours(256, "distribution"), MlxLm(), MlxLm(8, sort=True, accumulate=True, keep_cache=True))
    for trainer in contestants:
        work = trainer(subject.model, rows)
        assert work.completion_tokens == tokens and work.positions >= sum(length(row) - 1 for row in rows)
        assert work.took.min() > 0
        assert (work.traced.max() > 0) == isinstance(trainer, MlxLm)
        after = dict(tree_flatten(subject.model.parameters()))
        assert after.keys() == before.keys()
        assert all(mx.array_equal(after[name], array) for name, array in before.items())


def test_mlx_lm_makes_batches_of_neighbours_in_the_file(subject):
    """As its command line does; what it says of sorting by length is not so for rows of a file."""
    from mlx_lm.tuner.datasets import CacheDataset, CompletionsDataset
    from mlx_lm.tuner.trainer import iterate_batches

    rows = workload.training_rows(subject, 16, order=0)
    file = trainers.File(rows)
    of_theirs = CompletionsDataset([{"prompt": "a b", "completion": "c"}], None, "prompt", "completion", True)
    assert CacheDataset(of_theirs).itemlen(0) == CacheDataset(file).itemlen(0) == 2
    neighbours = [sorted(map(length, rows[i : i + 4])) for i in range(0, 16, 4)]
    bounds = [sorted(b[:, 1].tolist()) for _, b in iterate_batches(CacheDataset(file), 4, 2048, seed=0)]
    assert sorted(bounds) == sorted(neighbours)


def test_a_run_that_leaves_tokens_out_is_refused(subject, short):
    rows = workload.training_rows(subject, 6, order=0)
    with pytest.raises(AssertionError, match="completion tokens trained"):
        experiments._run(subject, MlxLm(), rows)  # its last batch is not whole


def test_lengths_of_few_rows_are_spread_as_those_of_many(subject):
    few = sorted(len(row.completion_ids) for row in workload.training_rows(subject, 16, order=1))
    assert few == sorted(len(row.completion_ids) for row in workload.training_rows(subject, 16, order=2))
    assert sum(few) / 16 == pytest.approx(sampling_workload.lengths(1024).mean(), rel=0.05)


def test_the_loss_of_every_head_has_the_same_gradient_and_takes_less():
    cases = (Case(4_200, 64, 8_192), Case(64, 64, 512, bits=4), Case(64, 64, 512, bits=8))
    rows = list(head.loss(cases, rounds=1))
    assert [row["engine"] for row in rows] == [head.OURS, head.FULL] * 3
    assert all(row["gradient_difference"] < 1e-4 for row in rows)
    ours, full = rows[:2]  # three chunks
    assert ours["peak_bytes"] - ours["weight_bytes"] < full["peak_bytes"] - full["weight_bytes"]


def test_packing_is_counted(subject, short):
    packed, padded, defaults, ordered = experiments.packing(subject, 256)
    assert packed["padding"] == 0 < padded["padding"]
    assert ordered["padding"] < defaults["padding"]
    assert len({row["carrying"] for row in (packed, padded, defaults, ordered)}) == 1


@pytest.mark.skipif(not (journal.RESULTS / "training.jsonl").exists(), reason="not measured yet")
def test_the_documented_measures_are_those_of_the_committed_rows():
    rows = journal.read(journal.RESULTS / "training.jsonl")
    docs = journal.RESULTS.parents[1] / "docs" / "benchmarks.md"
    assert measures.table(rows) in docs.read_text()
    assert (journal.RESULTS / "training.md").read_text() == program.render(rows)
