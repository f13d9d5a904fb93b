"""The predicted room: against cases that can be worked out by hand."""

import math

import pytest

pytest.importorskip("torch", reason="the builder imports torch")

from benchmarks.embedded_model.measure import Policy
from benchmarks.embedded_model.room import guard_forks, head_probability, lock, pass_rates
from benchmarks.embedded_model.solutions import CLEAN, Noise


def test_a_solution_without_noise_always_passes():
    assert pass_rates(CLEAN, Policy(1.5, two_stage=False), scatter=0.0) == pytest.approx((1.0, 1.0))


def test_a_lock_opens_where_its_head_falls_below_top_p():
    # (0.92 / (0.08 / 3))^(1/T) = 12 puts the head at 0.8 exactly.
    opens_at = math.log(0.92 / (0.08 / 3)) / math.log(12)
    distribution = lock(0.08, 3)
    assert head_probability(distribution, Policy(opens_at - 0.01, two_stage=False), 0.0) == 1.0
    assert head_probability(distribution, Policy(opens_at + 0.01, two_stage=False), 0.0) < 0.95
    assert head_probability(distribution, Policy(opens_at + 0.01, two_stage=True), 0.0) == 1.0


def test_the_places_of_the_guard_make_up_its_probability():
    noise = Noise()
    for forms in (2, 3):
        first, second = guard_forks(noise, forms)
        assert first[0] * second[0] == pytest.approx(noise.missing_guard**forms)
        assert sum(first) == pytest.approx(1) and sum(second) == pytest.approx(1)
