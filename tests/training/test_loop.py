import json
import math

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

import mlx_ssd.training.loop as loop
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.training.batches import pack_rows
from mlx_ssd.training.loop import train
from mlx_ssd.training.lora import adapter_weights, attach
from mlx_ssd.training.loss import step_gradient

from .tiny import Settings, make_rows, tiny_model

ROWS = make_rows(10)


def read_log(directory):
    return [json.loads(line) for line in (directory / "train_log.jsonl").read_text().splitlines()]


def snapshot(directory):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


class Interrupt(Exception):
    pass


def stop_after(step):
    def on_progress(**progress):
        if progress["step"] == step:
            raise Interrupt

    return on_progress


def test_a_training_from_start_to_end(tmp_path):
    settings, seen = Settings(epochs=8), []
    result = train(tiny_model(), ROWS, settings, tmp_path, "f", lambda **progress: seen.append(progress))
    log = read_log(tmp_path)
    assert [entry["step"] for entry in log] == list(range(1, 25))
    assert [progress.pop("total_steps") for progress in seen] == [24] * 24
    assert seen == log
    assert set(log[0]) == {"step", "loss", "learning_rate", "gradient_norm", "completion_tokens"}
    tokens = sum(len(row.completion_ids) for row in ROWS)
    assert sum(entry["completion_tokens"] for entry in log) == result.completion_tokens == 8 * tokens
    assert log[4]["learning_rate"] == 1e-2 and log[-1]["learning_rate"] == pytest.approx(2e-3)
    first, last = (np.mean([entry["loss"] for entry in log[part]]) for part in (slice(3), slice(-3, None)))
    assert last < 0.6 * first  # it learns by heart
    assert (result.steps, result.loss, result.resumed_from, result.warnings) == (24, log[-1]["loss"], 0, ())
    saved = mx.load(str(result.adapter / "adapters.safetensors"))
    assert result.trainable_parameters == sum(array.size for array in saved.values())


def test_one_step_equals_adamw_and_clipping_in_numpy(tmp_path):
    """B starts at zero, so in the first step A has no gradient and only decays, while B moves by the rate."""
    settings = Settings(epochs=1, rows_per_step=10, warmup_fraction=0, clip_norm=0.5)
    before = tiny_model()
    attach(before, settings)
    _, gradient, _ = step_gradient(before, None, [pack_rows(ROWS)])
    start = {name: np.array(w, dtype=np.float64) for name, w in adapter_weights(before).items()}
    grads = {name: np.array(g, dtype=np.float64) for name, g in tree_flatten(gradient)}
    norm = math.sqrt(sum((g**2).sum() for g in grads.values()))
    assert norm > settings.clip_norm

    result = train(tiny_model(), ROWS, settings, tmp_path, "f")
    assert read_log(tmp_path)[0]["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    for name, found in mx.load(str(result.adapter / "adapters.safetensors")).items():
        g = grads[name] * settings.clip_norm / norm
        # After one step the bias-corrected moments are g and g squared.
        expected = start[name] * (1 - 0.01 * 0.1) - 0.01 * g / (np.abs(g) + 1e-8)
        clear = (g == 0) | (np.abs(g) > 1e-6)  # between them, rounding decides the sign of an update
        assert np.allclose(np.array(found)[clear], expected[clear], atol=2e-5), name


@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_bases_train(tmp_path, bits):
    result = train(tiny_model(bits=bits), ROWS[:4], Settings(epochs=1), tmp_path, "f")
    assert result.steps == 1 and math.isfinite(result.loss)
    saved = mx.load(str(result.adapter / "adapters.safetensors"))
    moved = [name for name, array in saved.items() if name.endswith("lora_b") and mx.abs(array).max() > 0]
    assert len(moved) == len(saved) // 2


@pytest.mark.parametrize("targets", ["tokens", "distribution"])
@pytest.mark.parametrize("stopped", [1, 2, 3, 5, 6])
def test_resumed_equals_uninterrupted(tmp_path, stopped, targets):
    settings, policy = Settings(targets=targets, dropout=0.2, num_layers=1), DecodingPolicy(1.6, 20, 0.8)
    whole = train(tiny_model(), ROWS, settings, tmp_path / "whole", "f", None, policy)
    with pytest.raises(Interrupt):
        train(tiny_model(), ROWS, settings, tmp_path / "parts", "f", stop_after(stopped), policy)
    assert not (tmp_path / "parts" / "adapter").exists()
    parts = train(tiny_model(seed=0), ROWS[::-1], settings, tmp_path / "parts", "f", None, policy)
    assert parts.resumed_from == 2 * (stopped // 2)
    assert snapshot(tmp_path / "whole") == snapshot(tmp_path / "parts")
    assert (parts.loss, parts.completion_tokens) == (whole.loss, whole.completion_tokens)


def test_dropout_masks_differ_from_step_to_step_and_are_off_afterwards(tmp_path):
    """Every step has the same rows and, at this rate, the same weights: only masks can move its gradient."""
    settings = Settings(epochs=3, rows_per_step=10, learning_rate=1e-12, warmup_fraction=0)
    norms = {}
    for dropout in (0.0, 0.5):
        model = tiny_model().eval()  # as mlx_lm.load hands it over
        train(model, ROWS, settings.but(dropout=dropout), tmp_path / str(dropout), "f")
        norms[dropout] = [entry["gradient_norm"] for entry in read_log(tmp_path / str(dropout))]
        assert not model.training
    assert np.ptp(norms[0.0]) < 1e-5 * norms[0.0][0]
    assert all(abs(a - b) > 1e-4 * a for i, a in enumerate(norms[0.5]) for b in norms[0.5][:i])


def test_a_finished_training_is_not_trained_again(tmp_path):
    train(tiny_model(), ROWS, Settings(), tmp_path, "f")
    files = snapshot(tmp_path)
    (tmp_path / "adapter" / "adapters.safetensors").unlink()
    again = train(tiny_model(), ROWS, Settings(), tmp_path, "f", stop_after(6))
    assert again.resumed_from == again.steps == 6
    assert snapshot(tmp_path) == files


def test_a_damaged_checkpoint_costs_two_steps_and_a_warning(tmp_path):
    whole = train(tiny_model(), ROWS, Settings(), tmp_path, "f")
    files = snapshot(tmp_path)
    (tmp_path / "checkpoints" / "step-00000006" / "optimizer.safetensors").write_bytes(b"torn")
    again = train(tiny_model(), ROWS, Settings(), tmp_path, "f")
    assert again.resumed_from == 4 and "step-00000006 is damaged" in again.warnings[0]
    assert snapshot(tmp_path) == files and again.loss == whole.loss


def test_soft_targets_give_other_gradients_and_learn(tmp_path):
    settings, policy = Settings(epochs=8, rows_per_step=10, warmup_fraction=0), DecodingPolicy(2.0, 3)
    train(tiny_model(), ROWS, settings.but(epochs=1), tmp_path / "tokens", "f", None, policy)
    train(tiny_model(), ROWS, settings.but(targets="distribution"), tmp_path / "soft", "f", None, policy)
    tokens, soft = read_log(tmp_path / "tokens"), read_log(tmp_path / "soft")
    assert soft[0]["completion_tokens"] == tokens[0]["completion_tokens"]
    assert abs(soft[0]["loss"] - tokens[0]["loss"]) > 0.1
    assert soft[-1]["loss"] < soft[0]["loss"] - 0.2  # its floor, the entropy of the targets, is far above 0


def test_another_recipes_checkpoint_is_refused_and_left_alone(tmp_path):
    train(tiny_model(), ROWS, Settings(), tmp_path, "recipe-a")
    files = snapshot(tmp_path)
    with pytest.raises(BadInput, match="recipe-a.*recipe-b"):
        train(tiny_model(), ROWS, Settings(), tmp_path, "recipe-b")
    assert snapshot(tmp_path) == files


def test_a_log_shorter_than_its_checkpoint_is_refused(tmp_path):
    train(tiny_model(), ROWS, Settings(), tmp_path, "f")
    (tmp_path / "train_log.jsonl").write_text("")
    with pytest.raises(BadInput, match="shorter than its checkpoint"):
        train(tiny_model(), ROWS, Settings(), tmp_path, "f")


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_number_that_is_not_finite_stops_before_the_update(tmp_path, monkeypatch, what):
    calls = []

    def spoilt(*arguments):
        loss, gradient, tokens = step_gradient(*arguments)
        calls.append(loss)
        if len(calls) < 6:
            return loss, gradient, tokens
        if what == "loss":
            return math.nan, gradient, tokens
        return loss, tree_unflatten([(n, g * math.inf) for n, g in tree_flatten(gradient)]), tokens

    model = tiny_model()
    with pytest.raises(Interrupt):
        train(tiny_model(), ROWS, Settings(), tmp_path / "before", "f", stop_after(5))
    monkeypatch.setattr(loop, "step_gradient", spoilt)
    with pytest.raises(WorkFailed, match=r"step 6 of 6.*not finite.*learning_rate below 0.01"):
        train(model, ROWS, Settings(), tmp_path / "after", "f")
    assert snapshot(tmp_path / "after") == snapshot(tmp_path / "before")
    assert all(mx.isfinite(array).all() for array in adapter_weights(model).values())


def test_weights_that_are_not_finite_never_reach_a_file(tmp_path):
    """The one update of this training overflows, with no later loss to show it."""
    settings = Settings(epochs=1, rows_per_step=10, learning_rate=1e39, warmup_fraction=0)
    with pytest.raises(WorkFailed, match="adapter weight"):
        train(tiny_model(), ROWS, settings, tmp_path, "f")
    assert [path.name for path in tmp_path.iterdir()] == ["train_log.jsonl"]
