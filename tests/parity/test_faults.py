"""Faults that were planted on one side: each is caught by the row that is there for it, and by no row before it."""

import json
from dataclasses import replace
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest

pytest.importorskip("torch")

from mlx_ssd.decoding import policy_mlx
from mlx_ssd.parity import decoding, generation, logits, training, weights
from mlx_ssd.sampling import engine
from mlx_ssd.training import batches, loop
from mlx_ssd.weights import WeightFiles
from tests.parity.runs import moe_folder


def failed(part, subject, work):
    return [row.quantity for row in part.rows(subject, work) if row.verdict == "fail"]


@pytest.fixture(scope="module")
def work(subject, tmp_path_factory):
    """A folder with what MLX computes, nothing being wrong."""
    folder = tmp_path_factory.mktemp("work")
    assert failed(logits, subject, folder) == []
    return folder


def test_another_rope_base_moves_the_logits(subject, tmp_path, monkeypatch):
    import mlx_lm.models.qwen3 as qwen3

    rope = qwen3.initialize_rope
    monkeypatch.setattr(qwen3, "initialize_rope", lambda dims, base, **more: rope(dims, base=base * 1.01, **more))
    found = failed(logits, subject, tmp_path)
    assert "logits, base" in found and "logits, student" in found


def test_a_transposed_adapter_moves_the_student_alone(subject, tmp_path, monkeypatch):
    from mlx_lm.tuner.lora import LoRALinear

    def call(self, x):
        a = self.lora_a.reshape(self.lora_a.shape[::-1]).T
        return self.linear(x) + self.scale * ((x @ a) @ self.lora_b)

    monkeypatch.setattr(LoRALinear, "__call__", call)
    assert failed(logits, subject, tmp_path) == ["logits, student", "log-probabilities, student"]


def test_truncation_before_tempering_is_another_distribution(subject, work, monkeypatch, fewer_draws):
    numbers = policy_mlx.numbers

    def untempered(policies):
        return numbers([replace(p, order="llama_cpp") if hasattr(p, "order") else p for p in policies])

    monkeypatch.setattr(policy_mlx, "numbers", untempered)
    assert failed(decoding, subject, work) == ["decoding distribution", "draws, all tokens", "draws, 48 tokens"]


def test_a_tie_that_goes_to_the_higher_id_is_another_draw(subject, tmp_path, monkeypatch, fewer_draws):
    one = replace(subject, texts=subject.texts[:1])
    np.save(tmp_path / "student-0.npy", np.zeros((len(one.texts[0].completion_ids), 64), np.float32))
    assert failed(decoding, one, tmp_path) == []
    keys = policy_mlx.order_keys
    monkeypatch.setattr(policy_mlx, "order_keys", lambda xp, values, ids: keys(xp, values, 2**20 - ids))
    decode = policy_mlx.from_keys

    def decoded(xp, found):
        values, ids = decode(xp, found)
        return values, 2**20 - ids

    monkeypatch.setattr(policy_mlx, "from_keys", decoded)
    assert "draws, all tokens" in failed(decoding, one, tmp_path)


def test_a_loss_over_the_prompt_is_another_loss(subject, tmp_path, monkeypatch):
    def whole(rows, starts):
        lengths = [len(row.prompt_ids) + len(row.completion_ids) - 1 for row in rows]
        positions = [start + np.arange(n) for start, n in zip(starts, lengths, strict=True)]
        targets = [[*row.prompt_ids, *row.completion_ids][1:] for row in rows]
        return np.concatenate(positions).astype(np.int32), np.concatenate(targets).astype(np.int32)

    monkeypatch.setattr(training, "STEPS", 2)
    monkeypatch.setattr(batches, "_predicted", whole)
    found = failed(training, subject, tmp_path)
    assert {"loss, tokens", "LoRA gradient, tokens", "loss, distribution", "trajectory, losses"} <= set(found)


@pytest.mark.parametrize("wrong", [{"bias_correction": False}, {"weight_decay": 0.0}, {"betas": [0.9, 0.999]}], ids=str)
def test_another_optimizer_is_told_by_its_steps(subject, tmp_path, monkeypatch, wrong):
    adamw = loop.AdamW
    monkeypatch.setattr(loop, "AdamW", lambda **settings: adamw(**settings | wrong))
    monkeypatch.setattr(training, "STEPS", 3)
    found = failed(training, subject, tmp_path)
    # Corrected for its bias, the first step is the same whatever the betas.
    assert found[0] == ("weights after 3 steps" if "betas" in wrong else "weights after one step")


def test_gradients_that_are_not_clipped_are_caught(subject, tmp_path, monkeypatch):
    clip = loop.clip_grad_norm
    monkeypatch.setattr(loop, "clip_grad_norm", lambda gradient, limit: (gradient, clip(gradient, limit)[1]))
    monkeypatch.setattr(training, "STEPS", 3)
    recipe = subject.source.recipe
    train = recipe.train.model_copy(update={"clip_norm": 1e-4})  # so that it clips, by another share each step
    strict = replace(subject.source, recipe=recipe.model_copy(update={"train": train}))
    assert "weights after 3 steps" in failed(training, replace(subject, source=strict), tmp_path)


def test_a_schedule_one_step_ahead_is_caught(subject, tmp_path, monkeypatch):
    rate = loop.learning_rate
    monkeypatch.setattr(loop, "learning_rate", lambda step, *rest, **more: rate(step + 1, *rest, **more))
    monkeypatch.setattr(training, "STEPS", 3)
    assert "weights after one step" in failed(training, subject, tmp_path)


def test_uniforms_of_another_position_draw_other_tokens(subject, tmp_path, monkeypatch):
    uniform = engine.uniform_u32
    monkeypatch.setattr(engine, "uniform_u32", lambda key, position: uniform(key, position + 1))
    assert failed(generation, subject, tmp_path) == ["sampled generation, cached"]


def test_a_cache_that_forgets_the_prompt_is_caught_by_greedy_generation_too(subject, tmp_path, monkeypatch):
    from transformers import DynamicCache

    update = DynamicCache.update

    def forgetful(self, keys, values, *rest, **more):
        all_keys, all_values = update(self, keys, values, *rest, **more)
        if all_values.shape[-2] > values.shape[-2]:
            all_values[..., :40, :] = 0
        return all_keys, all_values

    monkeypatch.setattr(DynamicCache, "update", forgetful)
    assert failed(generation, subject, tmp_path) == ["greedy generation, cached", "sampled generation, cached"]


def test_weights_that_were_dequantized_in_16_bits_are_caught(tmp_path, monkeypatch):
    folder = moe_folder(tmp_path / "moe", bits=4)
    quantized = SimpleNamespace(source=SimpleNamespace(base=SimpleNamespace(path=folder)))
    assert failed(weights, quantized, tmp_path) == []
    read = WeightFiles.read
    rounded = lambda self, name: np.array(mx.array(read(self, name)).astype(mx.bfloat16).astype(mx.float32))  # noqa: E731
    monkeypatch.setattr(WeightFiles, "read", rounded)
    assert failed(weights, quantized, tmp_path) == ["weights"]


def test_what_is_no_number_fails(subject, work, tmp_path):
    for path in work.iterdir():
        if path.name.startswith("student"):
            np.save(tmp_path / path.name, np.load(path))
    np.save(tmp_path / "student-0.npy", np.full(np.load(work / "student-0.npy").shape, np.nan, np.float32))
    expected = [np.load(work / f"student-{number}.npy") for number in range(len(subject.texts))]
    row = logits._of_logits(subject, "student", tmp_path, expected)
    assert row.verdict == "fail"
    assert json.loads(json.dumps(row.facts, allow_nan=False))["max_abs"] == "inf"
