"""Sums over a vocabulary, beside float64."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_ssd.training.loss import cross_entropy
from mlx_ssd.training.sums import row_sums
from mlx_ssd.training.targets import token_targets


@pytest.mark.parametrize("length", [1, 255, 256, 704, 49_152, 151_936 + 3])
def test_sums_are_exact_to_float32(length):
    values = np.random.default_rng(0).random((2, 3, length), np.float32)
    found = np.array(row_sums(mx.array(values)))
    assert found.shape == (2, 3, 1)
    assert np.allclose(found[..., 0], values.sum(-1, dtype=np.float64), rtol=4e-6, atol=0)


def test_loss_and_gradient_over_a_large_vocabulary():
    """One likely token and a long tail, as a model that knows has it: summed in one accumulator, 2e-4 of the tail's
    mass is lost, and as much of every probability gained."""
    logits = 3 * np.random.default_rng(0).standard_normal((8, 49_152)).astype(np.float32)
    logits[:, 5] += 18
    wide, tokens = logits.astype(np.float64), np.arange(8)
    shifted = np.exp(wide - wide.max(-1, keepdims=True))
    softmax = shifted / shifted.sum(-1, keepdims=True)
    loss = -np.log(np.take_along_axis(softmax, tokens[:, None], -1)).sum()

    found, gradient = mx.value_and_grad(lambda z: cross_entropy(z, token_targets(tokens)(0, 8))[0])(mx.array(logits))
    assert found.item() == pytest.approx(loss, rel=1e-6)
    softmax[np.arange(8), tokens] -= 1
    assert np.abs(np.array(gradient) - softmax).max() < 5e-6
