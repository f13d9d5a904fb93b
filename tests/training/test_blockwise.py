"""Attention in blocks: the plain one's values and gradients, without the square of the length."""

import mlx.core as mx
import pytest
from mlx_lm.models import qwen3

from mlx_ssd.attention import plain_attention
from mlx_ssd.budget.training import BLOCK
from mlx_ssd.training import documents, lora
from mlx_ssd.training.batches import pack_rows
from mlx_ssd.training.blockwise import blockwise_attention
from mlx_ssd.training.forward import output_head
from mlx_ssd.training.loss import step_gradient
from mlx_ssd.training.recompute import recomputed_layers
from tests.architectures import tiny

from .tiny import Row, Settings, randomize_adapter

# batch, heads, of keys, length, head size, block
SHAPES = {
    "shared keys": (1, 6, 2, 65, 16, 16),
    "a batch": (3, 4, 4, 48, 8, 16),
    "shorter than a block": (1, 4, 2, 12, 8, 16),
    "one key for all": (2, 4, 1, 33, 8, 8),
    "values of another size": (1, 4, 4, 40, 16, 16),
}


def inputs(batch, heads, of_keys, length, size, of_values=None):
    """Queries, keys, values, and the gradient of what comes out."""
    mx.random.seed(0)
    last = of_values or size
    sizes = ((heads, size), (of_keys, size), (of_keys, last), (heads, last))
    return [2 * mx.random.normal((batch, of, length, width)) for of, width in sizes]


def window(length, width):
    place = mx.arange(length)
    return (place <= place[:, None]) & (place > place[:, None] - width)


def differentiated(attention, queries, keys, values, cotangent):
    (output,), gradients = mx.vjp(lambda *arrays: [attention(*arrays)], [queries, keys, values], [cotangent])
    return [output, *gradients]


def plain(mask):
    return lambda q, k, v: plain_attention(q, k, v, None, scale=0.3, mask=mask)


def blockwise(mask, block):
    return lambda q, k, v: blockwise_attention(q, k, v, 0.3, mask, block=block)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("width", [None, 5, 20])
def test_values_and_gradients_are_the_plain_ones(shape, width):
    *sizes, block = shape
    arrays = inputs(*sizes, of_values=24 if shape is SHAPES["values of another size"] else None)
    mask = window(sizes[3], width) if width else "causal"
    found, expected = (
        differentiated(attention, *arrays) for attention in (blockwise(mask, block), plain(mask))
    )
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and mx.abs(b).max() > 0.5
        assert mx.abs(a - b).max() < 2e-6 * mx.abs(b).max()


def test_in_16_bits_it_rounds_as_the_plain_one_does():
    arrays = [array.astype(mx.bfloat16) for array in inputs(1, 4, 2, 200, 32)]
    exact = differentiated(plain("causal"), *(array.astype(mx.float32) for array in arrays))

    def errors(attention):
        found = differentiated(attention, *arrays)
        assert all(array.dtype == mx.bfloat16 for array in found)
        return [mx.square(a.astype(mx.float32) - b).mean().item() ** 0.5 for a, b in zip(found, exact, strict=True)]

    for ours, its in zip(errors(blockwise("causal", 64)), errors(plain("causal")), strict=True):
        assert 0 < ours < 1.2 * its


def test_the_square_of_the_length_is_never_there():
    arrays = inputs(1, 4, 2, 1024, 16)
    mx.eval(arrays)
    peaks = {}
    for name, attention in (("plain", plain("causal")), ("blockwise", blockwise("causal", 64))):
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(differentiated(attention, *arrays))
        peaks[name] = mx.get_peak_memory() - before
    square = 4 * 4 * 1024**2
    assert peaks["blockwise"] < 0.6 * square < 2 * square < peaks["plain"]


def test_nothing_but_its_own_input_and_output_waits_for_the_backward_pass():
    arrays = inputs(1, 4, 2, 1024, 16)
    mx.eval(arrays)
    mx.clear_cache()
    before = mx.get_active_memory()
    output, *gradients = differentiated(blockwise("causal", 64), *arrays)
    mx.eval(output)
    assert mx.get_active_memory() - before < 3 * output.nbytes
    assert all(mx.abs(gradient).max() > 0.5 for gradient in gradients)


@pytest.mark.parametrize("name", ["qwen3", "gemma3", "gpt-oss"])
def test_long_samples_train_as_with_plain_attention(name, monkeypatch):
    """Two long samples and a short one in a row, layers recomputed or not; gemma3 has windows of 24 tokens."""
    rows = [Row(f"p{i}", 0, [3, 5, 7], [(i + 11 * j) % 90 for j in range(n)]) for i, n in enumerate((300, 40, 270))]
    model = tiny(name)
    lora.attach(model, Settings())
    randomize_adapter(model, 0.1)
    head, calls = output_head(model), []

    def counted(*arguments):
        calls.append(arguments)
        return blockwise_attention(*arguments)

    monkeypatch.setattr(documents, "blockwise_attention", counted)
    in_blocks = step_gradient(model, head, [pack_rows(rows)])
    assert len(calls) == 2 * len(model.layers)
    with recomputed_layers(model):
        recomputed = step_gradient(model, head, [pack_rows(rows)])
    monkeypatch.setattr(documents, "BLOCK", 10 * BLOCK)
    whole = step_gradient(model, head, [pack_rows(rows)])
    assert in_blocks[0] == recomputed[0]
    assert in_blocks[0].total == pytest.approx(whole[0].total, rel=1e-6)
    for path, expected in whole[1].items():
        assert mx.array_equal(in_blocks[1][path], recomputed[1][path]), path
        assert mx.abs(in_blocks[1][path] - expected).max() < 1e-4 * mx.abs(expected).max(), path


@pytest.mark.parametrize("width", [None, 20])
def test_attention_sinks(width):
    """gpt-oss: a logit a head that only takes weight away. Their own gradient, too."""
    *arrays, cotangent = inputs(2, 6, 2, 65, 16)
    arrays.append(mx.array([2.0, -1.0, 0.5, 3.0, 0.0, -4.0]))
    mask = window(65, width) if width else "causal"

    def in_blocks(q, k, v, s):
        return [blockwise_attention(q, k, v, 0.3, mask, s, block=16)]

    def by_hand(q, k, v, s):
        k, v = (mx.repeat(array, 3, axis=1) for array in (k, v))
        scores = mx.where(window(65, width or 65), 0.3 * q @ k.swapaxes(-1, -2), -mx.inf)
        sinks = mx.broadcast_to(s[None, :, None, None], (*scores.shape[:-1], 1))
        return [mx.softmax(mx.concatenate([scores, sinks], axis=-1), axis=-1)[..., :-1] @ v]

    found, expected = (mx.vjp(attention, arrays, [cotangent]) for attention in (in_blocks, by_hand))
    for a, b in zip(found[0] + found[1], expected[0] + expected[1], strict=True):
        assert a.shape == b.shape and mx.abs(b).max() > 0.5
        assert mx.abs(a - b).max() < 5e-6 * mx.abs(b).max()


def test_a_long_sample_of_a_model_with_sinks_goes_through_blocks():
    queries, keys, values, _ = inputs(1, 4, 2, BLOCK + 20, 16)
    call = {"cache": None, "scale": 0.3, "mask": "causal", "sinks": mx.array([2.0, -1.0, 0.5, 3.0])}
    with documents.apart(()):
        found = qwen3.scaled_dot_product_attention(queries, keys, values, **call)
    expected = plain_attention(queries, keys, values, **call)
    assert mx.abs(found - expected).max() < 2e-6 * mx.abs(expected).max()
    assert mx.abs(found - plain("causal")(queries, keys, values)).max() > 0.1
