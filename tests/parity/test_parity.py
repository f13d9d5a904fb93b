"""`mlx-ssd parity` on a run of the embedded model; mixtures of experts; layer by layer."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch")

from mlx_ssd.cli import main
from mlx_ssd.export.source import source_of
from mlx_ssd.parity import checking, generation, logits, training, weights
from mlx_ssd.parity.row import Row, differences, worst_relative
from mlx_ssd.parity.subject import subject_of
from tests import faults
from tests.parity.runs import make_run, moe_folder

QUANTITIES = [
    "weights", "logits, base", "log-probabilities, base", "logits, student",
    "log-probabilities, student", "decoding distribution", "draws, all tokens", "draws, 48 tokens",
    "loss, tokens", "LoRA gradient, tokens", "loss, distribution", "LoRA gradient, distribution",
    "weights after one step", "weights after 10 steps", "trajectory, losses", "trajectory, weights",
    "greedy generation, cached", "sampled generation, cached",
]  # fmt: skip


@pytest.mark.slow
def test_every_row_of_the_embedded_model_passes(run):
    process = faults.run("parity", str(run), env=faults.environment("openblas"))
    assert process.returncode == 0, process.stderr
    facts = json.loads((run / "parity.json").read_text())
    assert [row["quantity"] for row in facts["rows"]] == QUANTITIES
    assert facts["verdict"] == "pass" and facts["left_out"] == [] and facts["way"] == "whole"
    assert {row["verdict"] for row in facts["rows"]} == {"pass"}
    lines = process.stdout.splitlines()
    for quantity in QUANTITIES:
        assert sum(line.strip().startswith(f"{quantity} ") for line in lines) >= 1, quantity
    assert sum(line.rstrip().endswith("pass") for line in lines) == len(QUANTITIES)
    assert all(row["why"] for row in facts["rows"])


def test_a_row_that_fails_ends_with_1(run, monkeypatch):
    facts = {"rows": [Row("logits", {"max_abs": 2e-4}, "max_abs", 1e-4, "why").facts], "left_out": []}
    facts |= {"name": "run", "way": "whole"}
    monkeypatch.setattr(checking, "compare_run", lambda *_: facts)
    result = CliRunner().invoke(main, ["parity", str(run)])
    assert result.exit_code == 1 and "logits" in result.stderr and "fail" in result.stdout


def test_without_torch_it_says_what_to_install(run, monkeypatch):
    monkeypatch.setattr(checking.importlib.util, "find_spec", lambda name: None)
    result = CliRunner().invoke(main, ["parity", str(run)])
    assert result.exit_code == 2 and "pip install -e '.[parity]'" in result.stderr


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    result = CliRunner().invoke(main, ["parity", str(tmp_path)])
    assert result.exit_code == 2 and "not a run directory" in result.stderr


def test_layer_by_layer_gives_the_logits_of_the_whole(run, subject, tmp_path):
    by_layer = subject_of(source_of(run), by_layer=True)
    assert len(by_layer.texts) == len(subject.texts)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    logits.rows(subject, whole)
    rows = logits.rows(by_layer, parts)
    assert {row.verdict for row in rows} == {"pass"} and all("layer by layer" in row.note for row in rows)
    for number, text in enumerate(by_layer.texts):
        same = subject.texts.index(text)
        found, expected = np.load(parts / f"student-{number}.npy"), np.load(whole / f"student-{same}.npy")
        np.testing.assert_allclose(found, expected, atol=5e-5)
    assert training.left_out(by_layer) and generation.left_out(by_layer) and not logits.left_out(by_layer)


def test_by_layer_takes_the_texts_that_fit(run, monkeypatch):
    monkeypatch.setattr("mlx_ssd.parity.subject.BY_LAYER_TOKENS", 10)
    assert len(subject_of(source_of(run), by_layer=True).texts) == 1


@pytest.mark.parametrize("bits, experts", [(None, True), (8, False)])
def test_a_mixture_of_experts(tmp_path, bits, experts, monkeypatch):
    monkeypatch.setattr(training, "STEPS", 2)
    run = make_run(tmp_path / "run", moe_folder(tmp_path / "moe", bits), problems=3, train__experts=experts)
    subject = subject_of(source_of(run))
    parts = (weights, logits, training)
    rows = [row for part in parts for row in part.rows(subject, tmp_path)]
    assert {row.quantity: row.verdict for row in rows if row.verdict == "fail"} == {}
    by_layer = logits.rows(subject_of(source_of(run), by_layer=True), tmp_path)
    assert {row.verdict for row in by_layer} == {"pass"}


def test_a_student_trained_in_full_is_compared_without_its_training(run, tmp_path):
    from safetensors.torch import load_file, save_file

    from mlx_ssd.assets import model_path

    full = tmp_path / "full"
    shutil.copytree(run, full)
    adapter = full / "round-1" / "adapter"
    arrays = {name: array * 1.1 for name, array in load_file(model_path() / "model.safetensors").items()}
    save_file(arrays, adapter / "adapters.safetensors", {"format": "mlx"})
    (adapter / "adapter_config.json").write_text(json.dumps({"fine_tune_type": "full", "num_layers": -1}))
    subject = subject_of(source_of(full))
    assert {row.verdict for row in logits.rows(subject, tmp_path)} == {"pass"}
    assert "in full" in training.left_out(subject)


def test_figures():
    pairs = [(np.array([1.0, 2.0]), np.array([1.0, 4.0])), (np.zeros(3), np.zeros(3))]
    assert differences(pairs) == {"max_abs": 2.0, "mean_abs": 0.4}
    assert worst_relative(pairs) == 0.5 and worst_relative(pairs, by_norm=True) == pytest.approx(2 / 17**0.5)
    assert worst_relative([(np.ones(1), np.zeros(1))]) == float("inf")
    assert Row("x", {"max_abs": float("nan")}, "max_abs", 1.0, "").verdict == "fail"
    with pytest.raises(ValueError):
        differences([(np.zeros(2), np.zeros(3))])


@pytest.mark.parametrize("largest, tolerance", [(20.0, 1e-4), (50.0, 4e-4)])
def test_gradients_of_soft_targets_are_judged_by_what_float32_holds_of_the_logits(largest, tolerance, monkeypatch):
    import contextlib
    from types import SimpleNamespace

    import torch

    from mlx_ssd.torch_ref import model

    monkeypatch.setattr(model, "completion_logits", lambda *_: torch.tensor([[-largest, 1.0]]))
    row = SimpleNamespace(prompt_ids=[1], completion_ids=[2])
    found, why = training._of_gradient(None, SimpleNamespace(off=contextlib.nullcontext), [row])
    assert found == pytest.approx(tolerance) and ("its logit" in why) == (largest > 25)
