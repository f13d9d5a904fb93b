"""Gradient checkpointing: the same gradient, bit for bit, from less memory."""

import mlx.core as mx
import pytest
from mlx_lm.models import qwen3

from mlx_ssd.training import full, lora
from mlx_ssd.training.batches import pack_rows
from mlx_ssd.training.forward import forward_pass, output_head
from mlx_ssd.training.loss import step_gradient
from mlx_ssd.training.recompute import recomputed_layers

from .tiny import Row, Settings, make_rows, randomize_adapter, tiny_model, tiny_moe

STUDENTS = {
    "dropout": (tiny_model, lora, Settings(dropout=0.5)),
    "experts": (tiny_moe, lora, Settings()),
    "the last layer": (tiny_model, lora, Settings(num_layers=1, dropout=0.5)),
    "4 bit": (lambda: tiny_model(bits=4), lora, Settings()),
    "full": (tiny_model, full, Settings()),
}


@pytest.mark.parametrize("build, method, settings", STUDENTS.values(), ids=STUDENTS.keys())
def test_the_gradient_is_the_same_bit_for_bit(build, method, settings):
    """Packed, with dropout, in two micro-batches: masks and documents of the first time, and of no other batch."""
    model, rows = build(), make_rows(8)
    method.attach(model, settings)
    if method is lora:
        randomize_adapter(model, 0.1)
    head = output_head(model)
    model.train()
    found = {}
    for on in (False, True):
        with recomputed_layers(model, on):
            mx.random.seed(1)
            found[on] = step_gradient(model, head, [pack_rows(rows[:4]), pack_rows(rows[4:])])
    assert found[True][0] == found[False][0]
    for name, gradient in found[False][1].items():
        assert mx.abs(gradient).max() > 1e-5, name
        assert mx.array_equal(found[True][1][name], gradient), name


def test_layers_are_their_own_again_afterwards():
    before = qwen3.TransformerBlock.__call__
    with pytest.raises(KeyboardInterrupt):
        with recomputed_layers(tiny_model()):
            assert qwen3.TransformerBlock.__call__ is not before
            raise KeyboardInterrupt
    assert qwen3.TransformerBlock.__call__ is before


def held_bytes(model, batch, recomputed):
    """What waits for the backward pass once the forward pass is done."""
    head = output_head(model)
    with recomputed_layers(model, recomputed):
        mx.clear_cache()
        before = mx.get_active_memory()
        forward = forward_pass(model, head, batch)
        return mx.get_active_memory() - before, forward


def test_only_the_input_of_each_layer_is_kept():
    model, batch = tiny_model(), pack_rows([Row("p", 0, [1] * 4, [2] * 500)])
    lora.attach(model, Settings())
    plain, _ = held_bytes(model, batch, False)
    recomputed, _ = held_bytes(model, batch, True)
    state = 503 * 32 * 4  # bytes of one state of the row
    assert recomputed < 6 * state < 20 * state < plain


def test_no_activation_is_kept_below_the_lowest_trained_layer():
    batch = pack_rows([Row("p", 0, [1] * 4, [2] * 500)])
    held = {}
    for layers in (1, 2):
        model = tiny_model()
        lora.attach(model, Settings(num_layers=layers))
        held[layers], forward = held_bytes(model, batch, False)
        assert len(forward.gradient(forward.states)) == layers * 14
    assert held[1] < 0.6 * held[2]
