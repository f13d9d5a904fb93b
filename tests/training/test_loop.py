import json
import math
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.tuner.utils import load_adapters

import mlx_ssd.training.loop as loop
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.training import checkpoint
from mlx_ssd.training.batches import pack_rows
from mlx_ssd.training.forward import output_head
from mlx_ssd.training.loop import train
from mlx_ssd.training.lora import adapter_weights, attach
from mlx_ssd.training.loss import mean_loss, step_gradient
from mlx_ssd.training.rows import hold_out

from .tiny import Held, Settings, make_rows, tiny_model

ROWS = make_rows(10)
F = {"seed": 3}  # what a checkpoint is told apart by


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
    result = train(tiny_model(), ROWS, settings, tmp_path, F, lambda **progress: seen.append(progress))
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
    _, gradient = step_gradient(before, None, [pack_rows(ROWS)])
    start = {name: np.array(w, dtype=np.float64) for name, w in adapter_weights(before).items()}
    grads = {name: np.array(g, dtype=np.float64) for name, g in gradient.items()}
    norm = math.sqrt(sum((g**2).sum() for g in grads.values()))
    assert norm > settings.clip_norm

    result = train(tiny_model(), ROWS, settings, tmp_path, F)
    assert read_log(tmp_path)[0]["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    for name, found in mx.load(str(result.adapter / "adapters.safetensors")).items():
        g = grads[name] * settings.clip_norm / norm
        # After one step the bias-corrected moments are g and g squared.
        expected = start[name] * (1 - 0.01 * 0.1) - 0.01 * g / (np.abs(g) + 1e-8)
        clear = (g == 0) | (np.abs(g) > 1e-6)  # between them, rounding decides the sign of an update
        assert np.allclose(np.array(found)[clear], expected[clear], atol=2e-5), name


@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_bases_train(tmp_path, bits):
    result = train(tiny_model(bits=bits), ROWS[:4], Settings(epochs=1), tmp_path, F)
    assert result.steps == 1 and math.isfinite(result.loss)
    saved = mx.load(str(result.adapter / "adapters.safetensors"))
    moved = [name for name, array in saved.items() if name.endswith("lora_b") and mx.abs(array).max() > 0]
    assert len(moved) == len(saved) // 2


WAYS = {
    "tokens": {"dropout": 0.2, "num_layers": 1},
    "distribution": {"dropout": 0.2, "targets": "distribution", "gradient_checkpointing": True},
    "validation": {"validation": Held(every_steps=2), "steps": 6, "learning_rate": 0.3},
    "full": {"method": "full", "targets": "distribution"},
}


POLICY = DecodingPolicy(1.6, 20, 0.8)


@pytest.fixture(scope="module", params=WAYS.values(), ids=WAYS.keys())
def uninterrupted(request, tmp_path_factory):
    """Settings, and what a training with them came to and left behind."""
    settings, directory = Settings(**request.param), tmp_path_factory.mktemp("whole")
    return settings, train(tiny_model(), ROWS, settings, directory, F, None, POLICY), snapshot(directory)


@pytest.mark.parametrize("stopped", [1, 2, 3, 5, 6])
def test_resumed_equals_uninterrupted(tmp_path, stopped, uninterrupted):
    settings, whole, files = uninterrupted
    with pytest.raises(Interrupt):
        train(tiny_model(), ROWS, settings, tmp_path / "parts", F, stop_after(stopped), POLICY)
    assert not (tmp_path / "parts" / "adapter").exists()
    parts = train(tiny_model(seed=0), ROWS[::-1], settings, tmp_path / "parts", F, None, POLICY)
    assert parts.resumed_from == 2 * (stopped // 2)
    assert snapshot(tmp_path / "parts") == files
    assert (parts.loss, parts.completion_tokens) == (whole.loss, whole.completion_tokens)


@pytest.fixture
def slow_steps(monkeypatch):
    """As where every step takes longer than may be lost."""
    monkeypatch.setattr(checkpoint, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SAVE_SHARE", 0)


@pytest.mark.parametrize("stopped", [1, 3, 5])
def test_a_slow_step_is_not_lost_and_what_comes_of_it_is_the_same(tmp_path, stopped, uninterrupted, slow_steps):
    """`uninterrupted` has saved every second step alone."""
    settings, whole, files = uninterrupted
    with pytest.raises(Interrupt):
        train(tiny_model(), ROWS, settings, tmp_path, F, stop_after(stopped), POLICY)
    parts = train(tiny_model(seed=0), ROWS[::-1], settings, tmp_path, F, None, POLICY)
    assert parts.resumed_from == stopped
    found, earlier = snapshot(tmp_path), "step-00000004"  # in whose place there is the fifth, which was saved too
    assert any(earlier in path.parts for path in files)
    assert {path: data for path, data in files.items() if earlier not in path.parts}.items() <= found.items()
    assert (parts.loss, parts.completion_tokens) == (whole.loss, whole.completion_tokens)


def test_dropout_masks_differ_from_step_to_step_and_are_off_afterwards(tmp_path):
    """Every step has the same rows and, at this rate, the same weights: only masks can move its gradient."""
    settings = Settings(epochs=3, rows_per_step=10, learning_rate=1e-12, warmup_fraction=0)
    norms = {}
    for dropout in (0.0, 0.5):
        model = tiny_model().eval()  # as mlx_lm.load hands it over
        train(model, ROWS, settings.but(dropout=dropout), tmp_path / str(dropout), F)
        norms[dropout] = [entry["gradient_norm"] for entry in read_log(tmp_path / str(dropout))]
        assert not model.training
    assert np.ptp(norms[0.0]) < 1e-5 * norms[0.0][0]
    assert all(abs(a - b) > 1e-4 * a for i, a in enumerate(norms[0.5]) for b in norms[0.5][:i])


def test_a_finished_training_is_not_trained_again(tmp_path):
    train(tiny_model(), ROWS, Settings(), tmp_path, F)
    files = snapshot(tmp_path)
    (tmp_path / "adapter" / "adapters.safetensors").unlink()
    again = train(tiny_model(), ROWS, Settings(), tmp_path, F, stop_after(6))
    assert again.resumed_from == again.steps == 6
    assert snapshot(tmp_path) == files


def test_a_damaged_checkpoint_costs_two_steps_and_a_warning(tmp_path):
    whole = train(tiny_model(), ROWS, Settings(), tmp_path, F)
    files = snapshot(tmp_path)
    (tmp_path / "checkpoints" / "step-00000006" / "optimizer.safetensors").write_bytes(b"torn")
    again = train(tiny_model(), ROWS, Settings(), tmp_path, F)
    assert again.resumed_from == 4 and "step-00000006 is damaged" in again.warnings[0]
    assert snapshot(tmp_path) == files and again.loss == whole.loss


def test_soft_targets_give_other_gradients_and_learn(tmp_path):
    settings, policy = Settings(epochs=8, rows_per_step=10, warmup_fraction=0), DecodingPolicy(2.0, 3)
    train(tiny_model(), ROWS, settings.but(epochs=1), tmp_path / "tokens", F, None, policy)
    train(tiny_model(), ROWS, settings.but(targets="distribution"), tmp_path / "soft", F, None, policy)
    tokens, soft = read_log(tmp_path / "tokens"), read_log(tmp_path / "soft")
    assert soft[0]["completion_tokens"] == tokens[0]["completion_tokens"]
    assert abs(soft[0]["loss"] - tokens[0]["loss"]) > 0.1
    assert soft[-1]["loss"] < soft[0]["loss"] - 0.2  # its floor, the entropy of the targets, is far above 0


def test_another_recipes_checkpoint_is_refused_and_left_alone(tmp_path):
    train(tiny_model(), ROWS, Settings(), tmp_path, {"train": {"rank": 4}})
    files = snapshot(tmp_path)
    with pytest.raises(BadInput, match=r"train\.rank is 4 there and 8 here.*train afresh"):
        train(tiny_model(), ROWS, Settings(rank=8), tmp_path, {"train": {"rank": 8}})
    assert snapshot(tmp_path) == files


def test_a_log_shorter_than_its_checkpoint_is_refused(tmp_path):
    train(tiny_model(), ROWS, Settings(), tmp_path, F)
    (tmp_path / "train_log.jsonl").write_text("")
    with pytest.raises(BadInput, match="shorter than its checkpoint"):
        train(tiny_model(), ROWS, Settings(), tmp_path, F)


def spoil(monkeypatch, what, steps):
    """Make the loss or the gradient of some steps (from 1) not finite."""
    calls = []

    def spoilt(*arguments):
        loss, gradient = step_gradient(*arguments)
        calls.append(loss)
        if len(calls) not in steps:
            return loss, gradient
        if what == "loss":
            return replace(loss, total=math.nan), gradient
        return loss, {name: array * math.inf for name, array in gradient.items()}

    monkeypatch.setattr(loop, "step_gradient", spoilt)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_skipped_and_counted(tmp_path, monkeypatch, what):
    spoil(monkeypatch, what, {2, 3})
    result = train(tiny_model(), ROWS, Settings(), tmp_path, F)
    log = read_log(tmp_path)
    assert result.skipped_steps == 2 and result.steps == 6
    assert [entry.get("skipped") for entry in log] == [None, what, what, None, None, None]
    assert result.completion_tokens == sum(entry["completion_tokens"] for entry in log if "skipped" not in entry)
    assert not {"loss", "gradient_norm"} & set(log[1]), "what cannot be computed is absent"


def test_a_skipped_step_leaves_weights_and_moments_alone(tmp_path, monkeypatch):
    with pytest.raises(Interrupt):
        train(tiny_model(), ROWS, Settings(checkpoint_every_steps=1), tmp_path / "two", F, stop_after(2))
    spoil(monkeypatch, "loss", {3})
    with pytest.raises(Interrupt):
        train(tiny_model(), ROWS, Settings(checkpoint_every_steps=1), tmp_path / "three", F, stop_after(3))
    for name in ("adapter.safetensors", "optimizer.safetensors"):
        two = (tmp_path / "two" / "checkpoints" / "step-00000002" / name).read_bytes()
        assert (tmp_path / "three" / "checkpoints" / "step-00000003" / name).read_bytes() == two


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_too_many_in_a_row_stop_the_training_and_keep_the_last_checkpoint(tmp_path, monkeypatch, what):
    settings = Settings(epochs=3)
    with pytest.raises(Interrupt):
        train(tiny_model(), ROWS, settings, tmp_path / "before", F, stop_after(4))
    spoil(monkeypatch, what, {4, 5, 6, 7})
    model = tiny_model()
    with pytest.raises(WorkFailed, match=rf"step 7 of 9: the {what} of 4 steps in a row was not finite.*below 0.01"):
        train(model, ROWS, settings, tmp_path / "after", F)
    assert all(mx.isfinite(array).all() for array in adapter_weights(model).values())
    [kept] = sorted(path.name for path in (tmp_path / "after" / "checkpoints").iterdir())[-1:]
    assert kept == "step-00000006" and not (tmp_path / "after" / "adapter").exists()
    # Going on from there meets the same steps, and counts on from where it was.
    spoil(monkeypatch, what, {1})
    with pytest.raises(WorkFailed, match="4 steps in a row"):
        train(tiny_model(), ROWS, settings, tmp_path / "after", F)


def test_a_good_step_in_between_begins_the_count_anew(tmp_path, monkeypatch):
    spoil(monkeypatch, "loss", {1, 2, 4, 5})
    assert train(tiny_model(), ROWS, Settings(), tmp_path, F).skipped_steps == 4


def test_a_weight_of_the_base_that_is_not_a_number_stops_the_training(tmp_path):
    model = tiny_model()
    model.layers[0].mlp.up_proj.weight[3, 5] = mx.nan
    with pytest.raises(WorkFailed, match=r"the loss of 4 steps in a row was not finite.*its weights are damaged"):
        train(model, ROWS, Settings(), tmp_path, F)


def test_weights_that_are_not_finite_never_reach_a_file(tmp_path):
    """The one update of this training overflows, with no later loss to show it."""
    settings = Settings(epochs=1, rows_per_step=10, learning_rate=1e39, warmup_fraction=0)
    with pytest.raises(WorkFailed, match="a trained weight is not finite"):
        train(tiny_model(), ROWS, settings, tmp_path, F)
    assert [path.name for path in tmp_path.iterdir()] == ["train_log.jsonl"]


def test_steps_in_place_of_epochs(tmp_path):
    result = train(tiny_model(), ROWS, Settings(steps=7), tmp_path, F)
    assert result.steps == 7 and read_log(tmp_path)[-1]["learning_rate"] == pytest.approx(2e-3)
    tokens = sum(len(row.completion_ids) for row in ROWS)
    assert 2 * tokens < result.completion_tokens < 3 * tokens, "rows are taken again"


def test_how_the_work_is_cut_changes_rounding_alone(tmp_path):
    """In rows of any size, recomputed or not: a training that ran out of memory goes on with less."""
    results = {}
    for name, changes in {
        "whole": {"row_tokens": 1000},
        "small": {"row_tokens": 1},
        "recomputed": {"row_tokens": 30, "gradient_checkpointing": True},
    }.items():
        train(tiny_model(), ROWS, Settings(**changes), tmp_path / name, F)
        results[name] = mx.load(str(tmp_path / name / "adapter" / "adapters.safetensors"))
    for name in ("small", "recomputed"):
        for key, array in results["whole"].items():
            assert mx.abs(results[name][key] - array).max() < 1e-3 * mx.abs(array).max(), (name, key)


def test_rows_that_are_too_long_are_counted(tmp_path):
    longest = max(len(row.prompt_ids) + len(row.completion_ids) for row in ROWS)
    settings = Settings(max_length=longest - 1, too_long="cut", epochs=1)
    result = train(tiny_model(), ROWS, settings, tmp_path, F)
    assert (result.rows.cut, result.rows.dropped) == (1, 0)
    assert result.completion_tokens == sum(len(row.completion_ids) for row in ROWS) - 1


class TestValidation:
    def test_the_loss_of_held_out_samples_is_logged_from_the_base_on(self, tmp_path):
        settings = Settings(epochs=4, validation=Held(every_steps=3))
        result = train(tiny_model(), make_rows(20), settings, tmp_path, F)
        measured = {entry["step"]: entry["validation"]["loss"] for entry in read_log(tmp_path) if "validation" in entry}
        assert list(measured) == [0, 3, 6, 9, 12, 15, 16]
        _, held_out = hold_out(make_rows(20), 30)
        base = tiny_model()
        assert measured[0] == pytest.approx(mean_loss(base, output_head(base), [pack_rows(held_out)]).total, rel=1e-5)
        assert result.completion_tokens == 4 * sum(len(row.completion_ids) for row in make_rows(20)) - 4 * sum(
            len(row.completion_ids) for row in held_out
        )

    def test_terms_are_logged_with_soft_targets(self, tmp_path):
        settings = Settings(targets="distribution", validation=Held())
        train(tiny_model(), ROWS, settings, tmp_path, F, None, DecodingPolicy(1.6, 20, 0.8))
        for entry in read_log(tmp_path):
            for found in (entry, entry.get("validation", {})):
                if "loss" in found:
                    assert found["loss_kept_mass"] + found["loss_conditional"] == pytest.approx(found["loss"])
                    assert found["loss_kept_mass"] > 0

    def test_with_tokens_the_terms_are_measured_on_held_out_samples(self, tmp_path):
        settings = Settings(validation=Held())
        train(tiny_model(), ROWS, settings, tmp_path / "tokens", F, None, DecodingPolicy(1.6, 20, 0.8))
        soft = Settings(validation=Held(), targets="distribution")
        train(tiny_model(), ROWS, soft, tmp_path / "soft", F, None, DecodingPolicy(1.6, 20, 0.8))
        base, of_soft = (read_log(tmp_path / name)[0]["validation"] for name in ("tokens", "soft"))
        assert base["loss_kept_mass"] + base["loss_conditional"] == pytest.approx(base["loss_distribution"])
        assert base["loss_distribution"] == pytest.approx(of_soft["loss"], rel=1e-6) != base["loss"]

    def test_the_best_student_is_what_is_written(self, tmp_path):
        """Learning by heart at this rate, the held-out loss grows: the best is an early one."""
        settings = Settings(epochs=6, learning_rate=0.1, validation=Held(every_steps=1))
        result = train(tiny_model(), ROWS, settings, tmp_path, F)
        losses = {e["step"]: e["validation"]["loss"] for e in read_log(tmp_path)}
        best = min(losses, key=losses.get)
        assert result.best.step == best < result.steps and result.best.loss == losses[best]
        model = load_adapters(tiny_model(), str(result.adapter))
        _, held_out = hold_out(ROWS, 30)
        found = mean_loss(model, output_head(model), [pack_rows(held_out)]).total
        assert found == pytest.approx(losses[best], rel=1e-4)

    def test_patience_ends_the_training(self, tmp_path):
        settings = Settings(epochs=30, learning_rate=0.1, validation=Held(every_steps=1, patience=3))
        result = train(tiny_model(), ROWS, settings, tmp_path, F)
        assert result.steps == result.best.step + 3 < 60
        files = snapshot(tmp_path)
        again = train(tiny_model(), ROWS, settings, tmp_path, F)
        assert again.resumed_from == again.steps == result.steps and snapshot(tmp_path) == files
