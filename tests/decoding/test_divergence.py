"""boundary_distance: by hand, and as the explanation of what perturbed logits do."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_ssd.decoding.divergence import boundary_distance
from mlx_ssd.decoding.draw import draw
from mlx_ssd.decoding.policy import ORDERS, DecodingPolicy, StagedPolicy
from mlx_ssd.decoding.policy_mlx import make_sampler

LOGITS = np.log([0.1, 0.5, 0.15, 0.25])


def distance(policy, uniform, logits=LOGITS):
    return boundary_distance(policy, logits, round(uniform * 2**32))


def test_by_hand():
    untruncated = DecodingPolicy(1.0)  # boundaries in order of id: .1 .6 .75
    assert distance(untruncated, 0.62) == pytest.approx(0.02, abs=1e-8)
    assert distance(untruncated, 0.999) == pytest.approx(0.249, abs=1e-8)
    ranked = DecodingPolicy(1.0, 3)  # .5 .25 .15 of .9: boundaries 5/9, 7.5/9; the next would be 1/9
    assert distance(ranked, 0.55) == pytest.approx(5 / 9 - 0.55, abs=1e-8)
    assert distance(ranked, 0.99) == pytest.approx(
        0.5 / 9, abs=1e-8
    )  # the third against the fourth, excluded
    assert distance(DecodingPolicy(1.0, 0, 0.76), 0.1) == pytest.approx(0.01, abs=1e-8)  # .75 against top-p
    assert distance(DecodingPolicy(0.0), 0.3) == pytest.approx(0.5)  # the second is half as likely
    assert distance(untruncated, 0.3, np.zeros(1)) == float("inf")
    two_stage = StagedPolicy(DecodingPolicy(1.0, 3), DecodingPolicy(1.0, 0, 0.8))  # .8 against 7.5/9
    assert distance(two_stage, 0.1) == pytest.approx(7.5 / 9 - 0.8, abs=1e-8)


@pytest.mark.parametrize(
    "policy",
    [DecodingPolicy(1.6, 20, 0.8, order) for order in ORDERS]
    + [DecodingPolicy(1.0), DecodingPolicy(0.0), DecodingPolicy(0.9, 5)]
    + [StagedPolicy(DecodingPolicy(1.6, 20, 0.8), DecodingPolicy(1.1, 10, 0.9))],
    ids=lambda policy: policy.name(),
)
def test_whatever_a_perturbation_changes_was_near_a_boundary(policy):
    random = np.random.default_rng(0)
    rows, noise = 50_000, 5e-4
    logits = (random.normal(size=(rows, 40)) * 2.2).astype(np.float32)
    moved = (logits + random.uniform(-noise, noise, logits.shape)).astype(np.float32)
    u32 = random.integers(0, 2**32, rows, dtype=np.uint32)
    sampler = make_sampler(policy)
    before, after = (np.array(sampler(mx.array(z), mx.array(u32))) for z in (logits, moved))
    diverged = np.flatnonzero(before != after)
    assert len(diverged) >= 5, "the noise is large enough for the test to say something"
    distances = [boundary_distance(policy, logits[row], int(u32[row])) for row in diverged]
    # A logit's change d moves a probability, or a sum of some, by at most 2 d times it, at temperature 1 and
    # above.
    temperature = min(1.0, getattr(policy, "temperature", 1.0) or 1.0)
    assert max(distances) <= 4 * noise / temperature
    others = np.random.default_rng(1).integers(0, rows, 300)
    typical = [boundary_distance(policy, logits[row], int(u32[row])) for row in others]
    assert np.median(typical) > 6 * noise, "the distance does not excuse everything"


def test_the_distance_is_of_the_draw_itself():
    policy = DecodingPolicy(1.0, 3)
    for uniform in (0.1, 0.5, 0.6, 0.8, 0.9):
        d = distance(policy, uniform)
        u32 = np.array(
            [round((uniform + s * 0.99 * d) * 2**32) for s in (-1, 0, 1) if 0 <= uniform + s * d < 1]
        )
        assert len(set(draw(policy, np.tile(np.float32(LOGITS), (len(u32), 1)), u32.astype(np.uint32)))) == 1
