"""The coefficients that budgets are computed with still describe the trainer."""

import pytest

from benchmarks.training_memory import BASE, peak_bytes
from mlx_ssd.budget import ACTIVATION_BYTES, LOGIT_BYTES


def test_activations_of_a_layer():
    tokens, shallow, deep = 64, 2, 6
    measured = (peak_bytes(BASE, deep, tokens) - peak_bytes(BASE, shallow, tokens)) / (deep - shallow) / tokens
    assert measured == pytest.approx(sum(ACTIVATION_BYTES[name] * BASE[name] for name in BASE), rel=0.25)


def test_logits_of_completion_tokens():
    few, many = (peak_bytes(BASE, 2, 64, completion, vocabulary=4096) for completion in (8, 56))
    assert (many - few) / 48 / 4096 == pytest.approx(LOGIT_BYTES, rel=0.25)
