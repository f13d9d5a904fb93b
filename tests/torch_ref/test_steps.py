"""The twin's distribution, loss and optimizer, each against what defines it."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from mlx_ssd.decoding.policy import ORDERS, DecodingPolicy, StagedPolicy
from mlx_ssd.torch_ref.distribution import probabilities
from mlx_ssd.torch_ref.loss import cross_entropies
from mlx_ssd.torch_ref.optimizer import Optimizer
from mlx_ssd.training.schedule import learning_rate

POLICIES = [
    DecodingPolicy(*recipe, order)
    for recipe in ((1.6, 20, 0.8), (0.7, 20, 0.8), (1.3, 0, 0.9), (0.9, 5, 1.0), (0.0, 20, 0.8), (1.0, 1, 0.5))
    for order in ORDERS
]
POLICIES += [StagedPolicy(policy, DecodingPolicy(0.7, 10, 0.9)) for policy in POLICIES[:3]]
POLICIES.append(StagedPolicy(POLICIES[0], POLICIES[1], DecodingPolicy(1.2, 10, 0.9)))


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name())
def test_distribution_is_the_specification(policy):
    rows = (np.random.default_rng(0).normal(size=(30, 200)) * 2.2).astype(np.float32)
    rows[0], rows[1], rows[2, ::2] = 1.0, np.repeat(np.arange(50), 4), -np.inf
    found, distance = probabilities(policy, torch.from_numpy(rows))
    expected = np.array([policy.reference_probabilities(row) for row in rows])
    np.testing.assert_allclose(found.numpy()[distance > 1e-12], expected[distance.numpy() > 1e-12], atol=1e-14)
    assert (distance > 1e-12).sum() >= 28  # equal logits stand on the edge itself


def test_distance_tells_how_near_top_p_stood():
    logits = torch.tensor([[math.log(0.5), math.log(0.3), math.log(0.2)]])
    assert probabilities(DecodingPolicy(1.0, 0, 0.79), logits)[1].item() == pytest.approx(0.01, abs=1e-6)
    assert probabilities(DecodingPolicy(1.0, 2, 1.0), logits)[1].item() == math.inf


def test_kept_mass_is_that_of_the_support():
    logits = torch.tensor([[0.0, math.log(2.0), math.log(5.0)]])
    loss, kept = cross_entropies(logits, torch.tensor([[0.25, 0.75, 0.0]], dtype=torch.float64))
    assert kept.item() == pytest.approx(-math.log(3 / 8), abs=1e-6)
    assert loss.item() == pytest.approx(-0.25 * math.log(1 / 8) - 0.75 * math.log(2 / 8), abs=1e-6)
    assert cross_entropies(logits, torch.tensor([2]))[0].item() == pytest.approx(-math.log(5 / 8), abs=1e-6)


@pytest.mark.parametrize("total, warmup", [(1, 0.0), (10, 0.1), (10, 0.3), (7, 1.0), (200, 0.05)])
def test_learning_rate_takes_the_same_course(total, warmup):
    settings = SimpleNamespace(learning_rate=2e-3, warmup_fraction=warmup, final_fraction=0.2, weight_decay=0.1)
    settings.betas, settings.clip_norm = (0.9, 0.95), 1.0
    optimizer = Optimizer({"x": torch.zeros(1, requires_grad=True)}, settings, total)
    for step in range(total):
        expected = learning_rate(step, total, peak=2e-3, warmup_fraction=warmup, final_fraction=0.2)
        assert optimizer.rate(step) == pytest.approx(expected, rel=1e-12)


def test_a_step_by_hand():
    settings = SimpleNamespace(learning_rate=0.1, warmup_fraction=0.0, final_fraction=1.0, weight_decay=0.5)
    settings.betas, settings.clip_norm = (0.9, 0.95), 1.0
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    optimizer = Optimizer({"x": weight}, settings, 2)
    assert optimizer.step({"x": torch.tensor([3.0, -4.0])}) == pytest.approx(5.0)
    # Decay first; of a first step, corrected for its bias, the sign of the gradient is left.
    np.testing.assert_allclose(weight.detach(), [0.95 - 0.1, 1.9 + 0.1], rtol=1e-6)
    optimizer.step({"x": torch.tensor([0.0, 0.0])})
    mean, square = 0.09 * 0.6 / (1 - 0.81), 0.05 * 0.95 * 0.36 / (1 - 0.95**2)
    assert weight[0].item() == pytest.approx(0.85 * 0.95 - 0.1 * mean / square**0.5, rel=1e-5)
