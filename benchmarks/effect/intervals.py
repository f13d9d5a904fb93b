"""Intervals that cover problems and seeds: a bootstrap over problems, crossed with one over bases and their seeds.

A replicate draws as many problems as there are, the same for everything that is compared; crossed with it, as
many pre-trained bases as there are, and for each draw of a base as many of its seeds; all with replacement.

Over problems this is what it is in the rest of the project. Over three bases it is rough: a bootstrap of three
gives the spread between bases two thirds of its variance. What it counts twice, the problem x seed interaction,
makes up for that while bases differ little. How often a nominal 95 % interval then covers the truth is simulated, with
what single problems scatter by in the very differences that are reported: `coverage`, `Scatter.of`.
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


@dataclass(frozen=True)
class Scatter:
    """Standard deviations, in points, of what a difference is made of: the true effects of bases and of seeds, and of
    single problems what is common to all bases, what is of each base, and what is of each run."""

    bases: float
    seeds: float
    common: float
    of_base: float
    of_run: float

    @classmethod
    def of(cls, values: np.ndarray) -> Scatter:
        """By moments of nested random effects, of values [bases, seeds, problems]; what comes out negative is 0."""
        bases, seeds, problems = values.shape
        of_runs, of_bases = values.mean(axis=2, keepdims=True), values.mean(axis=(1, 2), keepdims=True)
        problem, base_problem = values.mean(axis=(0, 1), keepdims=True), values.mean(axis=1, keepdims=True)
        run = ((values - base_problem - of_runs + of_bases) ** 2).sum() / (bases * (seeds - 1) * (problems - 1))
        between = ((base_problem - problem - of_bases + values.mean()) ** 2).sum() / ((bases - 1) * (problems - 1))
        base = max(between - run / seeds, 0.0)
        common = max(problem.var(ddof=1) - base / bases - run / (bases * seeds), 0.0)
        seed = max(((of_runs - of_bases) ** 2).sum() / (bases * (seeds - 1)) - run / problems, 0.0)
        scatter = max(of_bases.var(ddof=1) - seed / seeds - base / problems - run / (seeds * problems), 0.0)
        return cls(*(float(np.sqrt(variance)) for variance in (scatter, seed, common, base, run)))


def coverage(
    scatter: Scatter,
    bases: int = 3,
    seeds: int = 3,
    problems: int = 240,
    experiments: int = 400,
    resamples: int = 1000,
) -> tuple[float, float]:
    """How often the interval holds the truth, 0, in simulated experiments; and the same over problems alone."""
    rng = np.random.default_rng(1)
    replicates = draw(bases, seeds, problems, resamples)
    alone = Replicates(np.full_like(replicates.runs, 1 / (bases * seeds)), replicates.problems)
    held = np.zeros(2)
    for _ in range(experiments):
        values = scatter.bases * rng.standard_normal((bases, 1, 1))
        values = values + scatter.seeds * rng.standard_normal((bases, seeds, 1))
        values = values + scatter.common * rng.standard_normal((1, 1, problems))
        values = values + scatter.of_base * rng.standard_normal((bases, 1, problems))
        values = values + scatter.of_run * rng.standard_normal((bases, seeds, problems))
        found = [interval(values, weights) for weights in (replicates, alone)]
        held += [each.low <= 0 <= each.high for each in found]
    return tuple(held / experiments)
