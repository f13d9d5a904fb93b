"""How much one choice of decodings gains over another, when both are chosen and measured on the same problems.

The best of many settings looks better than it is (winner's curse), for two-stage decoding and for the base alike,
and by different amounts. So nothing is measured on the problems that it was chosen on: the problems are split in
halves, each side's best is chosen on one half and the difference taken on the other, both ways, over several
splits (cross-fitting). A bootstrap over problems repeats all of that, the choosing included. Numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlx_ssd.errors import BadInput
from mlx_ssd.statistics import Interval

FEWEST = 8  # problems; with fewer a resample may draw none of one half, again and again
SPLITS = 20
RESAMPLES = 1000
SEED = 0  # intervals are a function of the grades alone
TWO_SIDED_95 = 1.959964  # standard deviations of a normal distribution


@dataclass(frozen=True)
class Room:
    """The gain of the best of some settings over the best of others, in fractions.

    `room` is about the gain itself, so its interval holds the probe's noise alone. `measured` is about what a test
    on other problems will show, so it holds that test's noise too. The settings are the best on all problems.
    """

    best: int
    baseline: int
    room: Interval
    measured: Interval


def estimate(
    passed: np.ndarray,
    settings: Sequence[int],
    baselines: Sequence[int],
    test_problems: int,
    test_samples: int,
    splits: int = SPLITS,
    resamples: int = RESAMPLES,
) -> Room:
    """The room between the best of `settings` and the best of `baselines`.

    passed: float [problems, settings, samples], 1 for a program that passes, 0 for one that does not, nan for one
    that could not be graded; a sample of the same number was drawn with the same uniforms in every setting.
    test_problems, test_samples: size of the test that `measured` is about. Intervals are 95 %, from the bootstrap's
    standard deviation. Raises BadInput with fewer than FEWEST problems or two samples.
    """
    passed = passed[(~np.isnan(passed)).any(axis=2).all(axis=1)]  # problems that every setting has a grade for
    problems, _, samples = passed.shape
    if problems < FEWEST or samples < 2:
        raise BadInput(f"the room needs at least {FEWEST} problems with 2 samples each; got {problems} with {samples}")
    rates = np.nanmean(passed, axis=2)
    settings, baselines = np.asarray(settings), np.asarray(baselines)
    best = int(settings[rates[:, settings].mean(axis=0).argmax()])
    baseline = int(baselines[rates[:, baselines].mean(axis=0).argmax()])

    rng = np.random.default_rng(SEED)
    halves = np.stack([rng.permutation(problems) < problems // 2 for _ in range(splits)])
    # How often each problem is drawn: a problem drawn twice stays on its side of every split.
    drawn = rng.multinomial(problems, np.full(problems, 1 / problems), size=resamples).astype(np.float64)
    mean = float(_cross_fitted(rates, np.ones((1, problems)), halves, settings, baselines)[0])
    variance = np.nanvar(_cross_fitted(rates, drawn, halves, settings, baselines), ddof=1)
    difference = passed[:, best] - passed[:, baseline]
    noise = _variance_of_test(difference, test_problems, test_samples)
    return Room(best, baseline, _around(mean, variance), _around(mean, variance + noise))


def _cross_fitted(
    rates: np.ndarray, weights: np.ndarray, halves: np.ndarray, settings: np.ndarray, baselines: np.ndarray
) -> np.ndarray:
    """The gain [resamples] for problem weights [resamples, problems] and splits [splits, problems]."""
    gains = []
    rows = np.arange(len(weights))
    for half in halves:
        one, other = (_means(rates[side], weights[:, side]) for side in (half, ~half))
        for chosen_on, measured_on in ((one, other), (other, one)):
            best = settings[chosen_on[:, settings].argmax(axis=1)]
            baseline = baselines[chosen_on[:, baselines].argmax(axis=1)]
            gains.append(measured_on[rows, best] - measured_on[rows, baseline])
    return np.nanmean(gains, axis=0)


def _means(rates: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means over problems [resamples, settings]."""
    total = weights.sum(axis=1, keepdims=True)
    total[total == 0] = np.nan  # of few problems a resample may draw none of one half, and then says nothing
    return weights @ rates / total


def _variance_of_test(difference: np.ndarray, problems: int, samples: int) -> float:
    """Variance of the mean difference on a test of so many problems and samples, from difference [problems,
    samples] in the probe: between problems, and within one between its samples (one-way analysis of variance)."""
    counted = (~np.isnan(difference)).sum(axis=1)
    usable = difference[counted >= 2]
    within = float(np.nanvar(usable, axis=1, ddof=1).mean()) if len(usable) else 0.0
    once = counted >= 1
    means = np.nanmean(difference[once], axis=1)
    between = max(0.0, float(means.var(ddof=1)) - within / float(counted[once].mean()))
    return (between + within / samples) / problems


def _around(mean: float, variance: float) -> Interval:
    reach = TWO_SIDED_95 * float(np.sqrt(variance))
    return Interval(mean, mean - reach, mean + reach)
