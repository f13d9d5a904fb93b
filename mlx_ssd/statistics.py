"""Scores of problems and what chance alone would make of them (numpy only).

All intervals are over problems: a benchmark is a sample of problems, and the samples of one problem are not
independent of each other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb, sqrt
from statistics import NormalDist

import numpy as np

from mlx_ssd.errors import BadInput

ROUNDING = 1e-9  # means of the same whole numbers may differ by so much and less


@dataclass(frozen=True)
class Interval:
    """An estimate and its bootstrap percentile interval, in the unit of the values."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class McNemar:
    """The discordant problems of two arms, and the test's two-sided p-value."""

    only_a: int
    only_b: int
    p: float


def pass_at_k(n: int, c: int, k: int) -> float | None:
    """Unbiased pass@k of one problem from n samples, c of them right: 1 - C(n-c, k) / C(n, k).

    The chance that at least one of k samples, drawn without replacement from the n, is right (Chen et al.
    2021, arXiv 2107.03374, equation 1). Exact integers, one rounding. None where n < k: it cannot be
    estimated.
    """
    if k < 1 or n < 0 or not 0 <= c <= n:
        raise BadInput(f"pass@k needs k >= 1 and 0 <= c <= n; got n={n}, c={c}, k={k}")
    return None if n < k else 1 - comb(n - c, k) / comb(n, k)


def pass_at_k_per_problem(n: np.ndarray, c: np.ndarray, k: int) -> np.ndarray | None:
    """pass@k of each problem, float64 [problems], from integer arrays n and c [problems].

    None where some problem has n < k: a mean over the others would be over other problems.
    """
    n, c = np.asarray(n), np.asarray(c)
    if n.ndim != 1 or n.shape != c.shape:
        raise BadInput(f"n and c must be two lists of the same length; got shapes {n.shape} and {c.shape}")
    pairs, where = np.unique(np.stack([n, c], axis=1), axis=0, return_inverse=True)
    values = [pass_at_k(int(pair[0]), int(pair[1]), k) for pair in pairs]
    return None if None in values else np.array(values, dtype=np.float64)[where.reshape(-1)]


def mean_pass_at_k(n: np.ndarray, c: np.ndarray, k: int) -> float | None:
    """Mean of pass@k over problems; None without problems, or where some problem has n < k."""
    values = pass_at_k_per_problem(n, c, k)
    return None if values is None or not len(values) else float(values.mean())


def bootstrap_mean(values: np.ndarray, resamples: int = 10_000, seed: int = 0, level: float = 0.95) -> Interval | None:
    """Mean of values [problems] with its percentile interval.

    Problems are drawn with replacement, as many as there are, `resamples` times; low and high are the
    (1 - level) / 2 and (1 + level) / 2 quantiles of the resampled means (linear interpolation). With few
    problems the interval is somewhat too narrow, as percentile intervals are. None with fewer than two
    problems: nothing varies.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise BadInput("a bootstrap needs one finite value for each problem")
    _check_bootstrap(resamples, level)
    if len(values) < 2:
        return None
    means = np.concatenate([values[drawn].mean(axis=1) for drawn in _drawn(len(values), resamples, seed)])
    return _percentile(float(values.mean()), means, level)


def _check_bootstrap(resamples: int, level: float) -> None:
    if resamples < 1 or not 0 < level < 1:
        raise BadInput(f"a bootstrap needs resamples >= 1 and 0 < level < 1; got {resamples} and {level}")


def _drawn(problems: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Which problems each resample holds, int64 [some resamples, problems] at a time: 8 MB bound the memory."""
    rng = np.random.default_rng(seed)
    rows = max(1, 1_000_000 // problems)
    for start in range(0, resamples, rows):
        yield rng.integers(problems, size=(min(rows, resamples - start), problems))


def _percentile(estimate: float, resampled: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high))


def paired_bootstrap(
    a: np.ndarray, b: np.ndarray, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Interval | None:
    """Mean of b - a, problem by problem, with its interval (`bootstrap_mean` of the differences).

    a, b: scores [problems] of two arms on the same problems in the same order. The pairing takes out what the
    arms have in common, the difficulty of the problems.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise BadInput(f"a paired bootstrap needs both arms on the same problems; got {a.shape} and {b.shape}")
    return bootstrap_mean(b - a, resamples, seed, level)


def mcnemar(a: np.ndarray, b: np.ndarray) -> McNemar:
    """McNemar's exact test of two arms with one outcome a problem: is each as likely to win where they differ?

    a, b: passed or not [problems], of two arms on the same problems in the same order. Problems on which both pass
    or both fail say nothing; of the n discordant ones, the number won by b is Binomial(n, 1/2) if neither arm is
    better (McNemar 1947, Psychometrika 12; the exact form is the sign test). p is two-sided: twice the smaller
    tail, at most 1; 1 without discordant problems. Exact integers, one rounding. It assumes that problems are
    independent of each other, and being exact it is conservative: it errs less often than it says.
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.ndim != 1 or a.shape != b.shape or not np.isin(np.concatenate([a, b]), (0, 1)).all():
        raise BadInput(
            "McNemar's test needs one outcome, 0 or 1, of each arm on each problem: "
            f"got shapes {a.shape} and {b.shape}; use the paired bootstrap for other scores"
        )
    only_a, only_b = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    n = only_a + only_b
    tail = sum(comb(n, i) for i in range(min(only_a, only_b) + 1))
    return McNemar(only_a, only_b, min(1.0, 2 * tail / 2**n))


def minimum_detectable_effect(differences: np.ndarray, power: float = 0.8, level: float = 0.95) -> float | None:
    """The smallest true mean difference that such a comparison finds with the given power, in the differences' unit.

    differences: b - a [problems]. "Found" is that the two-sided interval of the level excludes 0:
    (z_{(1 + level) / 2} + z_power) sd / sqrt(problems), 2.80 standard errors as the defaults are (Bloom 1995,
    Evaluation Review 19(5); for paired evaluations Miller 2024, arXiv 2411.00640, section on power; Card et al. 2020,
    arXiv 2010.06595). sd is over problems with n - 1, and holds both the spread of problems and the noise of samples:
    more samples a problem lower only the latter.

    It takes from the data their spread alone, not the difference that was seen, so it is no "observed power" (Hoenig
    & Heisey 2001, The American Statistician 55(1)). Normal theory: somewhat too small with few problems, and the
    spread is taken to be the same at that effect. None with fewer than two problems, or where no difference differs
    from another: a spread of 0 is no evidence of perfect sight.
    """
    differences = np.asarray(differences, dtype=np.float64)
    if differences.ndim != 1 or not np.isfinite(differences).all():
        raise BadInput("a minimum detectable effect needs one finite difference for each problem")
    if not 0 < power < 1 or not 0 < level < 1:
        raise BadInput(f"a minimum detectable effect needs 0 < power, level < 1; got {power} and {level}")
    if len(differences) < 2 or np.ptp(differences) < ROUNDING:
        return None
    z = NormalDist().inv_cdf((1 + level) / 2) + NormalDist().inv_cdf(power)
    return z * float(differences.std(ddof=1)) / sqrt(len(differences))


def length_controlled(
    differences: np.ndarray, lengths: np.ndarray, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Interval | None:
    """The mean difference of two arms at equal length of their answers: is a gain more than shorter or longer answers?

    differences: b - a in score [problems]; lengths: b - a in mean completion tokens [problems]. Least squares of
    differences on lengths over problems; the intercept is the difference expected where both arms write equally much.
    Its percentile interval draws problems, each with both its figures. The idea is that of length-controlled
    AlpacaEval (Dubois et al. 2024, arXiv 2404.04475), as an ordinary regression of paired differences.

    It assumes that the difference is linear in that of lengths, with one slope for all problems; where hardly any
    problem has answers of equal length, that is an extrapolation. It cannot say what caused what: an answer that runs
    on because it is lost is long for being wrong, one that forgets a case is short for being wrong, and a gain by
    fewer of these is then taken for one of length. So it is a reason to doubt a gain only where the arms' lengths
    differ by much. Nor does it see all of length: means of few samples are noisy, which flattens the slope, and a few
    answers cut at the token limit weigh heavily on it.

    None with fewer than two problems, or where some resample has no slope because all its lengths differ by the same
    (not 0): so few problems, or so uniform a change, cannot tell length from the rest.
    """
    differences, lengths = np.asarray(differences, dtype=np.float64), np.asarray(lengths, dtype=np.float64)
    if differences.ndim != 1 or differences.shape != lengths.shape or not np.isfinite([differences, lengths]).all():
        raise BadInput(
            "a length-controlled difference needs a finite difference in score and in length for each problem; "
            f"got shapes {differences.shape} and {lengths.shape}"
        )
    _check_bootstrap(resamples, level)
    if len(differences) < 2:
        return None
    found = [_at_zero(lengths[drawn], differences[drawn]) for drawn in _drawn(len(lengths), resamples, seed)]
    intercepts = np.concatenate(found)
    if np.isnan(intercepts).any():
        return None
    return _percentile(float(_at_zero(lengths[None], differences[None])[0]), intercepts, level)


def _at_zero(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of each row [rows, n] the least-squares line of y on x, at x = 0 [rows]. Where no x differs from another there
    is no slope: their mean y if all are 0, else NaN."""
    centred = x - x.mean(axis=1, keepdims=True)
    alike = np.ptp(x, axis=1) < ROUNDING
    slope = (centred * y).sum(axis=1) / np.where(alike, 1.0, (centred**2).sum(axis=1))
    return np.where(alike & (np.abs(x[:, 0]) > ROUNDING), np.nan, y.mean(axis=1) - slope * x.mean(axis=1))
