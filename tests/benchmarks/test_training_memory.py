"""The coefficients that budgets are computed with still describe the trainer."""

import pytest

from benchmarks.training_memory import KINDS, LONG, SHORT, Shape, computed_in, logit_bytes, step_peak
from mlx_ssd.budget import ModelSize
from mlx_ssd.budget.training import FULL, LORA, step_bytes
from mlx_ssd.sections import Training

SHAPE = Shape(96, 320, 192, 64, layers=5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("samples", [SHORT[:3], LONG[:1]])
def test_a_step_takes_what_is_predicted(kind, recompute, samples):
    train = Training(method="full" if kind == "full" else "lora", rank=2)
    size, longest = ModelSize.of(SHAPE.config), max(samples)
    predicted = step_bytes(size, train, sum(samples), longest, recompute, dtype=computed_in(kind))
    assert predicted == pytest.approx(step_peak(kind, SHAPE, samples, recompute), rel=0.25)


@pytest.mark.parametrize("kind, of", [*LORA.items(), ("full", FULL)])
@pytest.mark.parametrize("plain_head", [True, False])
def test_logits(kind, of, plain_head):
    assert logit_bytes(kind, plain_head) == pytest.approx(of.logits if plain_head else of.all_logits, rel=0.25)
