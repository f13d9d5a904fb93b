"""Memory: the forecast by lengths, refusal of what cannot fit, and the peak that was expected."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_ssd import models
from mlx_ssd.budget.decoding import SMALLEST, capacity_for
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.errors import BadInput
from mlx_ssd.machine.working_set import working_set
from mlx_ssd.sampling.engine import Decoding, Request
from mlx_ssd.sampling.memory import LengthForecast, weight_bytes
from mlx_ssd.sections import Model


@pytest.fixture(scope="module")
def model():
    return models.load(models.locate(Model()), "float32")[0]


def requests(lengths, prompt=60):
    random = np.random.default_rng(0)
    policy = DecodingPolicy(1.0, 20, 0.8)
    return [
        Request(i, random.integers(10, 600, prompt).tolist(), policy, (i, 0), int(length))
        for i, length in enumerate(lengths)
    ]


def test_capacities_hold_what_they_are_asked_for_and_waste_at_most_half():
    sizes = [capacity_for(tokens) for tokens in range(1, 5000)]
    assert all(tokens <= size for tokens, size in enumerate(sizes, 1))
    assert all(size <= 1.5 * tokens for tokens, size in enumerate(sizes, 1) if tokens > SMALLEST)
    assert sorted(set(sizes))[:6] == [128, 192, 256, 384, 512, 768]


def test_survival_by_hand():
    """Kaplan and Meier's estimate: of 4 that are known to be at risk at 2 tokens 1 ends, of 3 at 5 tokens 1."""
    forecast = LengthForecast(100)
    for length in (2, 5):
        forecast.add(length)
    survival = forecast.survival([3])  # and the one that is taken to reach the limit
    assert np.allclose(survival(np.array([0, 1, 2, 4, 5, 50])), [1, 1, 3 / 4, 3 / 4, 3 / 4 / 2, 3 / 4 / 2])


def test_before_any_answer_has_ended_all_are_expected_to_be_longest():
    forecast = LengthForecast(50)
    assert forecast.highest([(10, 0, 50), (20, 5, 50)], lambda tokens: tokens) == 10 + 45 + 20 + 50


def test_a_row_s_own_limit_counts():
    forecast = LengthForecast(1000)
    assert forecast.highest([(10, 0, 3)], lambda tokens: tokens) < 20


def test_the_forecast_is_the_mean_of_what_comes():
    """Lengths drawn from one law: the highest expected sum against a simulation of such rows."""
    random = np.random.default_rng(0)

    def lengths(n):
        return np.ceil(random.exponential(100, n)).clip(1, 1000).astype(int)

    forecast = LengthForecast(1000)
    for length in lengths(5000):
        forecast.add(int(length))
    expected = forecast.highest([(50, 0, 1000)] * 64, lambda tokens: tokens)
    times = np.arange(0, 1000, 5)
    held = [
        [((50 + t) * (of >= t)).sum() for t in times] for of in (lengths(64) for _ in range(200))
    ]
    assert expected == pytest.approx(np.mean(held, axis=0).max(), rel=0.05)


def test_a_budget_too_small_for_one_row_is_refused_with_numbers_and_mend(model):
    with pytest.raises(BadInput) as error:
        Decoding(model, requests([4000]), [], 8, memory=weight_bytes(model) + 1_000_000)
    assert "4,000 tokens" in str(error.value) and "GB" in str(error.value) and "memory_gb" in str(error.value)


def test_the_peak_is_what_was_expected(model):
    random = np.random.default_rng(1)
    asked = requests(random.integers(20, 400, 64), prompt=200)
    decoding = Decoding(model, asked, [], 32)
    mx.reset_peak_memory()
    before = mx.get_active_memory() - weight_bytes(model)  # what other tests hold
    assert sum(len(completed.completion_ids) for completed in decoding.run()) == sum(r.max_tokens for r in asked)
    assert mx.get_peak_memory() - before == pytest.approx(decoding.expected_peak, rel=0.25)


def test_the_working_set_is_less_than_the_machine_has():
    import psutil

    assert 0.3 * psutil.virtual_memory().total < working_set() < 0.75 * psutil.virtual_memory().total
