"""Samples packed into one row: each as if it stood alone."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import qwen3
from mlx_lm.models.rope_utils import DynamicNTKScalingRoPE

from mlx_ssd.attention import plain_attention
from mlx_ssd.training import lora
from mlx_ssd.training.batches import pack_rows, pad_rows
from mlx_ssd.training.documents import apart, can_pack
from mlx_ssd.training.forward import completion_states, output_head
from mlx_ssd.training.loss import step_gradient
from tests.architectures import tiny

from .tiny import Settings, make_rows, randomize_adapter, tiny_model

PACKS = {"qwen3": True, "llama": True, "qwen3-moe": True, "gpt-oss": True, "gemma3": True, "qwen3-next": False}


@pytest.mark.parametrize("name, packs", PACKS.items())
def test_which_models_can_pack(name, packs):
    model = tiny(name)
    model.train()
    assert can_pack(model) == packs
    assert model.training


@pytest.mark.parametrize("name", [name for name, packs in PACKS.items() if packs])
def test_packed_equals_alone(name):
    """gemma3's window of 24 tokens is shorter than the longest sample."""
    model, rows = tiny(name), make_rows(12, longest=40)
    packed = completion_states(model, None, pack_rows(rows))
    alone = mx.concatenate([completion_states(model, None, pack_rows([row])) for row in rows])
    assert mx.abs(alone).max() > 1
    assert mx.abs(packed - alone).max() < 1e-4 * mx.abs(alone).max()


def test_without_it_samples_see_each_other():
    """What the other tests rest on: attention over the whole row is another result."""
    model, rows = tiny("qwen3"), make_rows(4)
    batch = pack_rows(rows)
    states = model(mx.array(batch.tokens)).reshape(-1, 200)[mx.array(batch.positions)]
    assert mx.abs(states - completion_states(model, None, batch)).max() > 0.1


@pytest.mark.parametrize("bits", [None, 4])
def test_gradients_packed_equal_those_padded(bits):
    model, rows = tiny_model(bits=bits), make_rows(7)
    lora.attach(model, Settings())
    randomize_adapter(model, 0.1)
    head = output_head(model)
    packed, padded = (step_gradient(model, head, [make(rows)]) for make in (pack_rows, pad_rows))
    assert packed[0].total == pytest.approx(padded[0].total, rel=1e-6)
    for name, gradient in packed[1].items():
        assert mx.abs(gradient).max() > 1e-4, name
        assert mx.allclose(gradient, padded[1][name], rtol=1e-4, atol=2e-6), name


def test_attention_is_mlx_lms_own_again_afterwards():
    with pytest.raises(KeyboardInterrupt):
        with apart((2, 3)):
            assert qwen3.scaled_dot_product_attention is not plain_attention
            raise KeyboardInterrupt
    assert qwen3.scaled_dot_product_attention is plain_attention


def test_attention_to_anything_else_than_the_row_is_an_error():
    with apart((2, 3)), pytest.raises(ValueError, match="attention across documents"):
        tiny("qwen3")(mx.zeros((1, 6), dtype=mx.int32))


def test_positions_that_depend_on_the_length_of_the_row_are_not_packed():
    model = tiny_model()
    model.layers[0].self_attn.rope = DynamicNTKScalingRoPE(16, 128, False, 10_000.0, 2.0)
    assert not can_pack(model)


def test_a_row_of_4096_tokens_is_close_to_its_samples_alone():
    """Positions run on, so rounding in the rotary embedding grows with them."""
    model, rows = tiny("qwen3"), make_rows(140, longest=55)
    batch = pack_rows(rows)
    assert batch.tokens.shape[1] > 4000
    packed = np.array(completion_states(model, None, batch))
    alone = np.concatenate([completion_states(model, None, pack_rows([row])) for row in rows])
    assert np.abs(packed - alone).max() < 1e-3 * np.abs(alone).max()


def test_trainable_parameters_are_the_models_own_after_a_forward_pass():
    model = tiny_model()
    lora.attach(model, Settings())
    before = tree_flatten(model.trainable_parameters())
    step_gradient(model, output_head(model), [pack_rows(make_rows(3))])
    after = tree_flatten(model.trainable_parameters())
    assert all(a is b for (_, a), (_, b) in zip(before, after, strict=True))
