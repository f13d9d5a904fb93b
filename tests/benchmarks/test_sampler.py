"""The benchmark of the sampler runs on both samplers as they are."""

import mlx.core as mx
import numpy as np
import pytest

from benchmarks import sampler


@pytest.mark.parametrize("policy", [sampler.TRUNCATED, sampler.WHOLE], ids=["truncated", "whole"])
def test_both_draw_a_token_a_row_and_are_timed(policy):
    logits = mx.array(np.random.default_rng(0).normal(size=(4, 704)).astype(np.float32))
    for call in (sampler.ours(policy, logits), sampler.theirs(policy, logits)):
        tokens = call()
        assert tokens.shape == (4,) and mx.all(tokens < 704)
    found = sampler.measure(policy, 2, 704, 1)
    assert found["ours_ms"] > 0 and found["mlx_lm_ms"] > 0
    assert found["ratio_range"][0] == found["ratio_range"][1] == pytest.approx(found["ratio"], abs=0.01)
