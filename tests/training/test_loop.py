import json
import math

import mlx.core as mx
import numpy as np
import pytest

import mlx_ssd.training.loop as loop
from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.training.loop import train

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
    assert sum(entry["completion_tokens"] for entry in log) == 8 * sum(len(row.completion_ids) for row in ROWS)
    assert log[4]["learning_rate"] == 1e-2 and log[-1]["learning_rate"] == pytest.approx(2e-3)
    first, last = (np.mean([entry["loss"] for entry in log[part]]) for part in (slice(3), slice(-3, None)))
    assert last < 0.6 * first  # it learns by heart
    assert (result.steps, result.loss, result.resumed_from, result.warnings) == (24, log[-1]["loss"], 0, ())
    assert result.completion_tokens == sum(entry["completion_tokens"] for entry in log)
    saved = mx.load(str(result.adapter / "adapters.safetensors"))
    assert result.trainable_parameters == sum(array.size for array in saved.values())


def test_one_step_equals_adamw_and_clipping_in_numpy(tmp_path):
    """B starts at zero, so A has no gradient in the first step and is only decayed; B moves by the rate."""
    settings = Settings(epochs=1, rows_per_step=10, warmup_fraction=0, clip_norm=0.5)
    before = tiny_model()
    loop.attach_lora(before, settings)
    _, gradient, _ = loop.step_gradient(before, None, [loop_batch()])
    start = {name: np.array(w, dtype=np.float64) for name, w in loop.adapter_weights(before).items()}
    grads = {name: np.array(g, dtype=np.float64) for name, g in loop.tree_flatten(gradient)}
    norm = math.sqrt(sum((g**2).sum() for g in grads.values()))
    assert norm > settings.clip_norm

    result = train(tiny_model(), ROWS, settings, tmp_path, "f")
    assert read_log(tmp_path)[0]["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    for name, found in mx.load(str(result.adapter / "adapters.safetensors")).items():
        g = grads[name] * settings.clip_norm / norm
        # After one step the bias-corrected moments are g and g squared.
        expected = start[name] * (1 - 0.01 * 0.1) - 0.01 * g / (np.abs(g) + 1e-8)
        clear = np.abs(g) > 1e-6
        assert np.allclose(np.array(found)[clear], expected[clear], atol=2e-5), name


def loop_batch():
    from mlx_ssd.training.batches import pad_rows

    return pad_rows(ROWS)


@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_bases_train(tmp_path, bits):
    result = train(tiny_model(bits=bits), ROWS[:4], Settings(epochs=1), tmp_path, "f")
    assert result.steps == 1 and math.isfinite(result.loss)
    saved = mx.load(str(result.adapter / "adapters.safetensors"))
    moved = [name for name, array in saved.items() if name.endswith("lora_b") and mx.abs(array).max() > 0]
    assert len(moved) == len(saved) // 2


@pytest.mark.parametrize("stopped", [1, 2, 3, 5, 6])
def test_resumed_equals_uninterrupted(tmp_path, stopped):
    settings = Settings(dropout=0.2, num_layers=1)
    whole = train(tiny_model(), ROWS, settings, tmp_path / "whole", "f")
    with pytest.raises(Interrupt):
        train(tiny_model(), ROWS, settings, tmp_path / "parts", "f", stop_after(stopped))
    assert not (tmp_path / "parts" / "adapter").exists()
    parts = train(tiny_model(seed=0), ROWS[::-1], settings, tmp_path / "parts", "f")
    assert parts.resumed_from == 2 * (stopped // 2)
    assert snapshot(tmp_path / "whole") == snapshot(tmp_path / "parts")
    assert (parts.loss, parts.completion_tokens) == (whole.loss, whole.completion_tokens)


def test_dropout_differs_from_step_to_step(tmp_path):
    """Same rows, weights held still: only the masks can make the losses differ."""
    settings = Settings(dropout=0.5, epochs=3, rows_per_step=10, learning_rate=1e-3, final_fraction=1, scale=20)
    train(tiny_model(), ROWS, settings, tmp_path / "a", "f")
    train(tiny_model(), ROWS, settings.but(dropout=0.0), tmp_path / "b", "f")
    norms = [[entry["gradient_norm"] for entry in read_log(tmp_path / name)] for name in "ab"]
    assert all(a != b for a, b in zip(*norms))


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
    honest, calls = loop.step_gradient, []

    def step_gradient(*arguments):
        loss, gradient, tokens = honest(*arguments)
        calls.append(loss)
        if len(calls) < 6:
            return loss, gradient, tokens
        if what == "loss":
            return math.nan, gradient, tokens
        return loss, loop.tree_unflatten([(n, g * math.inf) for n, g in loop.tree_flatten(gradient)]), tokens

    model = tiny_model()
    with pytest.raises(Interrupt):
        train(tiny_model(), ROWS, Settings(), tmp_path / "before", "f", stop_after(5))
    monkeypatch.setattr(loop, "step_gradient", step_gradient)
    with pytest.raises(WorkFailed, match=r"step 6 of 6.*not finite.*learning_rate below 0.01"):
        train(model, ROWS, Settings(), tmp_path / "after", "f")
    assert snapshot(tmp_path / "after") == snapshot(tmp_path / "before")
    assert all(mx.isfinite(array).all() for array in loop.adapter_weights(model).values())


def test_weights_that_are_not_finite_never_reach_a_file(tmp_path):
    """The one update of this training overflows, with no later loss to show it."""
    settings = Settings(epochs=1, rows_per_step=10, learning_rate=1e39, warmup_fraction=0)
    with pytest.raises(WorkFailed, match="adapter weight"):
        train(tiny_model(), ROWS, settings, tmp_path, "f")
    assert [path.name for path in tmp_path.iterdir()] == ["train_log.jsonl"]
