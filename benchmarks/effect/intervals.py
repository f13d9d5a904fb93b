"""Intervals that cover problems and seeds: a bootstrap over problems, crossed with one over bases and their seeds.

A replicate draws as many problems as there are, the same for everything that is compared; crossed with it, as
many pre-trained bases as there are, and for each draw of a base as many of its seeds; all with replacement.

Over problems this is what it is in the rest of the project. Over three bases it is rough: a bootstrap of three
gives the spread between bases two thirds of its variance. What it counts twice, the problem x seed interaction,
makes up for that while bases differ little: in simulation (`python -m benchmarks.effect.intervals`) a nominal
95 % interval covers the truth as often or oftener while the true effects of bases scatter by up to 1.5 points,
and in about 85 % of cases where they scatter by 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlx_ssd.statistics import Interval

LEVEL = 0.95
RESAMPLES = 10_000


@dataclass(frozen=True)
class Replicates:
    """Weights of the replicates; each row sums to 1."""

    runs: np.ndarray  # [resamples, bases * seeds]
    problems: np.ndarray  # [resamples, problems]


def draw(bases: int, seeds: int, problems: int, resamples: int = RESAMPLES, seed: int = 0) -> Replicates:
    rng = np.random.default_rng(seed)
    runs = np.zeros((resamples, bases, seeds))
    rows = np.arange(resamples)
    for _ in range(bases):
        chosen = rng.integers(bases, size=resamples)
        runs[rows, chosen] += rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    drawn = rng.multinomial(problems, np.full(problems, 1 / problems), size=resamples)
    return Replicates(runs.reshape(resamples, -1) / (bases * seeds), drawn / problems)


def interval(values: np.ndarray, replicates: Replicates) -> Interval:
    """Mean of values [bases, seeds, problems] and its percentile interval over the replicates."""
    per_problem = replicates.runs @ values.reshape(-1, values.shape[-1])  # [resamples, problems]
    means = (per_problem * replicates.problems).sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def coverage(
    base_scatter: float,
    seed_scatter: float = 0.7,
    bases: int = 3,
    seeds: int = 3,
    problems: int = 240,
    experiments: int = 400,
    resamples: int = 1000,
) -> tuple[float, float]:
    """How often the interval holds the truth, 0, in simulated experiments; and the same over problems alone.

    Scatters are standard deviations in points. Those of single problems (8 common to all bases, 8 of each base,
    18 of each run) are about what differences of pass@1 from 8 samples show on the embedded problems.
    """
    rng = np.random.default_rng(1)
    replicates = draw(bases, seeds, problems, resamples)
    alone = Replicates(np.full_like(replicates.runs, 1 / (bases * seeds)), replicates.problems)
    held = np.zeros(2)
    for _ in range(experiments):
        values = base_scatter * rng.standard_normal((bases, 1, 1)) + seed_scatter * rng.standard_normal(
            (bases, seeds, 1)
        )
        values = values + 8 * rng.standard_normal((1, 1, problems)) + 8 * rng.standard_normal((bases, 1, problems))
        values = values + 18 * rng.standard_normal((bases, seeds, problems))
        found = [interval(values, weights) for weights in (replicates, alone)]
        held += [each.low <= 0 <= each.high for each in found]
    return tuple(held / experiments)


if __name__ == "__main__":
    print("true scatter of bases | interval covers | over problems alone")
    for scatter in (0.0, 0.7, 1.5, 3.0):
        whole, alone = coverage(scatter)
        print(f"{scatter:21.1f} | {whole:15.3f} | {alone:19.3f}")
