import pytest

from mlx_ssd.training.schedule import learning_rate


def rates(total, peak=1.0, warmup_fraction=0.1, final_fraction=0.2):
    return [
        learning_rate(step, total, peak=peak, warmup_fraction=warmup_fraction, final_fraction=final_fraction)
        for step in range(total)
    ]


def test_values_at_the_ends_and_in_the_middle():
    found = rates(100, peak=5e-6)
    assert found[0] == pytest.approx(5e-7)  # a tenth of the way up, not zero
    assert found[4] == pytest.approx(2.5e-6)
    assert found[9] == pytest.approx(5e-6) == max(found)
    assert found[54] == pytest.approx(3e-6)  # half-way down: (peak + final) / 2
    assert found[99] == pytest.approx(1e-6)
    assert found[9:] == sorted(found[9:], reverse=True)


def test_without_warmup_the_first_step_is_at_the_peak():
    found = rates(10, warmup_fraction=0)
    assert (found[0], found[-1]) == (1.0, pytest.approx(0.2))


def test_final_fraction_of_one_is_a_constant_rate():
    assert rates(5, warmup_fraction=0, final_fraction=1) == [1.0] * 5


@pytest.mark.parametrize("total, warmup_fraction", [(1, 0), (1, 1), (2, 1), (2, 0.5)])
def test_short_trainings_stay_within_bounds(total, warmup_fraction):
    assert all(0 < rate <= 1 for rate in rates(total, warmup_fraction=warmup_fraction))
