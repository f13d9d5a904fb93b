"""The room's estimate and intervals against simulated models whose true room is known."""

import numpy as np
import pytest

from mlx_ssd.errors import BadInput
from mlx_ssd.probing.room import estimate

BASE, TWO_STAGE = 8, 20  # decodings on each side: unequal, so that the best of each is flattered unequally
PROBLEMS, SAMPLES = 100, 5
TEST_PROBLEMS, TEST_SAMPLES = 240, 8
SIMULATIONS = 200
FAST = {"splits": 8, "resamples": 200}


class World:
    """Pass probabilities of problems under each decoding. In the mean over all problems every decoding of a side is
    alike, which is where choosing flatters most, and the sides differ by `room`."""

    def __init__(self, room: float):
        self.shift = 0.0
        low, high = -3.0, 3.0
        for _ in range(30):
            self.shift = (low + high) / 2
            if self._gain() < room:
                low = self.shift
            else:
                high = self.shift

    def probabilities(self, problems: int, rng: np.random.Generator) -> np.ndarray:
        """[problems, decodings]"""
        side = np.repeat([0, 1], [BASE, TWO_STAGE])
        difficulty = rng.normal(0.6, 1.8, (problems, 1))
        of_side = rng.normal(0, 0.5, (problems, 2))[:, side]
        of_decoding = rng.normal(0, 0.5, (problems, BASE + TWO_STAGE))
        return 1 / (1 + np.exp(-(difficulty + of_side + of_decoding + self.shift * side)))

    def _gain(self) -> float:
        means = self.probabilities(20_000, np.random.default_rng(0)).mean(axis=0)
        return means[BASE:].mean() - means[:BASE].mean()


def draw(probabilities: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Programs that pass [problems, decodings, samples]."""
    return (rng.random((*probabilities.shape, samples)) < probabilities[:, :, None]).astype(float)


@pytest.fixture(scope="module", params=[0.0, 0.05])
def simulated(request):
    """(true room, for each simulation: estimate, naive estimate, what a test measured)"""
    world, found = World(request.param), []
    for seed in range(SIMULATIONS):
        rng = np.random.default_rng([7, seed])
        passed = draw(world.probabilities(PROBLEMS, rng), SAMPLES, rng)
        room = estimate(passed, range(BASE, BASE + TWO_STAGE), range(BASE), TEST_PROBLEMS, TEST_SAMPLES, **FAST)
        test = draw(world.probabilities(TEST_PROBLEMS, rng), TEST_SAMPLES, rng).mean(axis=(0, 2))
        rates = passed.mean(axis=(0, 2))
        found.append((room, rates[BASE:].max() - rates[:BASE].max(), test[room.best] - test[room.baseline]))
    return request.param, found


def test_interval_of_the_room_covers_the_truth(simulated):
    true, found = simulated
    covered = np.mean([room.room.low <= true <= room.room.high for room, _, _ in found])
    assert covered >= 0.90


def test_interval_of_a_measurement_covers_what_a_test_shows(simulated):
    _, found = simulated
    covered = np.mean([room.measured.low <= shown <= room.measured.high for room, _, shown in found])
    assert covered >= 0.90
    # and not because it is endlessly wide: a fair interval misses now and then
    assert covered < 1 and np.mean([room.measured.high - room.measured.low for room, _, _ in found]) < 0.15


def test_estimate_is_not_flattered_by_the_choosing(simulated):
    true, found = simulated
    estimates = np.array([room.room.mean for room, _, _ in found])
    error = estimates.std() / np.sqrt(SIMULATIONS)
    assert abs(estimates.mean() - true) < 0.0025 + 2 * error, "a quarter of a point, beyond chance"
    naive = np.mean([value for _, value, _ in found])
    assert naive > true + 0.006, "without cross-fitting the longer list of decodings wins"


def test_best_settings_are_the_best_on_all_problems():
    rng = np.random.default_rng(1)
    passed = draw(np.tile([0.2, 0.6, 0.4, 0.5, 0.9], (60, 1)), 4, rng)
    room = estimate(passed, [2, 3, 4], [0, 1], 240, 8)
    assert (room.best, room.baseline) == (4, 1)
    assert room.room.low < 0.3 < room.room.high
    assert room.measured.low < room.room.low and room.room.high < room.measured.high


def test_without_any_noise_everything_is_exact():
    passed = np.zeros((10, 3, 2))
    passed[:, 1] = 1
    room = estimate(passed, [1, 2], [0], 50, 4)
    assert (room.best, room.baseline) == (1, 0)
    assert (room.room.mean, room.room.low, room.room.high) == (1, 1, 1) == (room.measured.low, 1, room.measured.high)


def test_a_larger_test_narrows_only_what_it_will_measure():
    passed = draw(np.tile([0.3, 0.5], (40, 1)), 4, np.random.default_rng(2))
    small, large = estimate(passed, [1], [0], 20, 4), estimate(passed, [1], [0], 20_000, 8)
    assert small.room == large.room
    assert small.measured.high - small.measured.low > 1.2 * (large.measured.high - large.measured.low)
    assert large.measured.high == pytest.approx(large.room.high, abs=0.003)


def test_interval_of_one_fixed_pair_is_the_paired_bootstraps():
    """Nothing is chosen where each side has one setting: cross-fitting is then the plain difference."""
    from mlx_ssd.statistics import paired_bootstrap

    passed = draw(np.random.default_rng(3).random((80, 2)), 4, np.random.default_rng(4))
    a, b = passed.mean(axis=2).T
    plain, room = paired_bootstrap(a, b), estimate(passed, [1], [0], 240, 8).room
    assert room.mean == pytest.approx(plain.mean, abs=1e-12)
    assert (room.low, room.high) == pytest.approx((plain.low, plain.high), abs=0.12 * (plain.high - plain.low))


def test_ungraded_programs_are_left_out():
    passed = draw(np.tile([0.3, 0.6], (50, 1)), 6, np.random.default_rng(5))
    holes = passed.copy()
    holes[::7, 1, 0] = np.nan
    holes[3, 0] = np.nan  # no grade at all: the problem tells nothing
    whole, left = estimate(passed, [1], [0], 240, 8), estimate(holes, [1], [0], 240, 8)
    assert np.isfinite([left.room.mean, left.measured.low]).all()
    assert left.room.mean == pytest.approx(whole.room.mean, abs=0.02)


@pytest.mark.parametrize("shape", [(7, 2, 4), (10, 2, 1)])
def test_too_little_to_tell_is_refused(shape):
    with pytest.raises(BadInput, match="at least 8 problems with 2 samples"):
        estimate(np.zeros(shape), [1], [0], 240, 8)
