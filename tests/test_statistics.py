from itertools import combinations

import numpy as np
import pytest

from mlx_ssd.errors import BadInput
from mlx_ssd.statistics import (
    bootstrap_mean,
    length_controlled,
    mcnemar,
    mean_pass_at_k,
    minimum_detectable_effect,
    paired_bootstrap,
    pass_at_k,
    pass_at_k_per_problem,
)


def test_pass_at_k_is_the_share_of_draws_with_a_right_one():
    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                draws = list(combinations([1] * c + [0] * (n - c), k))
                assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-15)


def test_pass_at_k_at_its_ends():
    assert pass_at_k(20, 0, 5) == 0.0
    assert pass_at_k(20, 16, 5) == 1.0
    assert pass_at_k(20, 7, 1) == 7 / 20
    assert 0 < pass_at_k(5000, 1, 1) < pass_at_k(5000, 1, 4999) < 1  # no overflow
    assert pass_at_k(4, 4, 5) is None
    assert pass_at_k(0, 0, 1) is None


@pytest.mark.parametrize("n, c, k", [(5, 6, 1), (5, -1, 1), (-1, 0, 1), (5, 2, 0)])
def test_pass_at_k_of_nonsense(n, c, k):
    with pytest.raises(BadInput):
        pass_at_k(n, c, k)


def test_pass_at_k_over_problems():
    n, c = np.array([4, 4, 8]), np.array([1, 4, 0])
    expected = [pass_at_k(4, 1, 2), 1.0, 0.0]
    np.testing.assert_array_equal(pass_at_k_per_problem(n, c, 2), expected)
    assert mean_pass_at_k(n, c, 2) == pytest.approx(np.mean(expected))
    assert mean_pass_at_k(n, c, 5) is None and pass_at_k_per_problem(n, c, 5) is None
    assert mean_pass_at_k([], [], 1) is None
    with pytest.raises(BadInput):
        mean_pass_at_k([4], [1, 2], 1)


def test_bootstrap_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    a, b = rng.random(50), rng.random(50)
    options = {"n_resamples": 20_000, "confidence_level": 0.9, "method": "percentile"}
    theirs = stats.bootstrap(((b - a),), np.mean, rng=np.random.default_rng(2), **options).confidence_interval
    ours = paired_bootstrap(a, b, resamples=20_000, level=0.9)
    # two draws of 20,000 resamples: the ends differ by a few per cent of the standard error, 0.058
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.004)
    assert ours.mean == pytest.approx((b - a).mean(), abs=1e-15)


def test_bootstrap_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(3)
    covered = 0
    for seed in range(1500):
        difficulty = rng.beta(0.7, 0.7, size=120)
        a = rng.binomial(8, difficulty) / 8
        b = rng.binomial(8, 0.9 * difficulty + 0.1) / 8
        interval = paired_bootstrap(a, b, resamples=1000, seed=seed)
        covered += interval.low <= 0.1 * 0.5 <= interval.high  # E[b - a] = 0.1 (1 - E difficulty)
    assert 0.93 <= covered / 1500 <= 0.97  # the standard error of 1,500 intervals: 0.006


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(4)
    a = rng.random(100)
    b = a + 0.05 + 0.01 * rng.random(100)
    paired, unpaired = paired_bootstrap(a, b), paired_bootstrap(a, rng.permutation(b))
    assert paired.high - paired.low < 0.1 * (unpaired.high - unpaired.low)
    assert paired.low > 0


def test_bootstrap_is_determined_by_its_seed_and_not_by_its_chunks():
    values = np.random.default_rng(5).random(2000)  # more than one chunk
    first = bootstrap_mean(values, resamples=1100, seed=7)
    assert bootstrap_mean(values, resamples=1100, seed=7) == first != bootstrap_mean(values, resamples=1100, seed=8)
    rng = np.random.default_rng(7)
    means = [values[rng.integers(2000, size=2000)].mean() for _ in range(1100)]
    assert (first.low, first.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=1e-12)


def test_degenerate_inputs_give_no_number():
    assert bootstrap_mean([]) is None
    assert bootstrap_mean([0.5]) is None
    assert paired_bootstrap([0.5], [0.7]) is None
    same = bootstrap_mean([0.5, 0.5])
    assert (same.mean, same.low, same.high) == (0.5, 0.5, 0.5)
    for bad in ([0.1, np.nan], [[0.1], [0.2]]):
        with pytest.raises(BadInput):
            bootstrap_mean(bad)
    with pytest.raises(BadInput):
        paired_bootstrap([0.1, 0.2], [0.1])
    with pytest.raises(BadInput):
        bootstrap_mean([0.1, 0.2], level=1.0)


def outcomes(both, only_a, only_b, neither):
    """Two arms' outcomes, from the cells of the fourfold table."""
    cells = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], [both, only_a, only_b, neither], axis=0)
    return np.random.default_rng(6).permutation(cells).T


def test_mcnemar_of_a_published_example():
    """Two media for growing tubercle bacilli, 50 specimens: two-sided exact P = 0.0129. Armitage & Berry, Statistical
    Methods in Medical Research, 3rd ed. 1994, p. 127; the exact P as StatsDirect's manual gives it for that table
    (www.statsdirect.com/help/chi_square_tests/mat.htm)."""
    test = mcnemar(*outcomes(20, 12, 2, 16))
    assert (test.only_a, test.only_b) == (12, 2)
    assert round(test.p, 4) == 0.0129
    assert test.p == 2 * (1 + 14 + 91) / 2**14


def test_mcnemar_agrees_with_the_binomial_test_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    for only_a in range(0, 30, 3):
        for only_b in range(1, 40, 4):
            theirs = stats.binomtest(only_a, only_a + only_b, 0.5).pvalue
            assert mcnemar(*outcomes(5, only_a, only_b, 7)).p == pytest.approx(theirs, rel=1e-12)
    assert mcnemar(*outcomes(0, 900, 700, 0)).p == pytest.approx(stats.binomtest(900, 1600, 0.5).pvalue, rel=1e-12)


def test_mcnemar_at_its_ends():
    assert mcnemar(*outcomes(3, 0, 0, 4)).p == 1.0
    assert mcnemar(*outcomes(3, 2, 2, 4)).p == 1.0  # twice the tail would be more
    a, b = outcomes(3, 9, 1, 4)
    assert mcnemar(a.astype(bool), b.astype(bool)).p == mcnemar(b, a).p
    for bad in (([0, 1], [0.5, 1]), ([0, 1], [0]), ([[0, 1]], [[0, 1]]), ([2], [2])):
        with pytest.raises(BadInput):
            mcnemar(*bad)


def draw_arms(rng, problems, effect):
    """pass@1 of two arms from 4 samples a problem; b is better by `effect` on every problem."""
    difficulty = rng.uniform(0.05, 0.85, size=problems)
    return rng.binomial(4, difficulty) / 4, rng.binomial(4, difficulty + effect) / 4


def test_at_the_minimum_detectable_effect_the_paired_interval_has_80_per_cent_power():
    rng, problems, effect = np.random.default_rng(7), 150, 0.1
    for _ in range(5):  # the spread depends a little on the effect
        a, b = draw_arms(rng, 400_000, effect)
        effect = minimum_detectable_effect(b - a) * np.sqrt(400_000 / problems)
    assert 0.05 < effect < 0.12
    found, said = 0, []
    for seed in range(1000):
        a, b = draw_arms(rng, problems, effect)
        interval = paired_bootstrap(a, b, resamples=1000, seed=seed)
        found += interval.low > 0 or interval.high < 0
        said.append(minimum_detectable_effect(b - a))
    assert 0.77 <= found / 1000 <= 0.83  # the standard error of 1,000 tests: 0.013
    assert np.mean(said) == pytest.approx(effect, rel=0.01)


def test_minimum_detectable_effect_by_its_formula():
    stats = pytest.importorskip("scipy.stats")
    differences = np.random.default_rng(8).normal(size=40)
    theirs = (stats.norm.ppf(0.995) + stats.norm.ppf(0.9)) * stats.sem(differences)
    assert minimum_detectable_effect(differences, power=0.9, level=0.99) == pytest.approx(theirs, rel=1e-9)
    assert minimum_detectable_effect([0.0, 1.0]) == pytest.approx(2.8015852 * 0.5)


def test_minimum_detectable_effect_of_too_little():
    for nothing in ([], [0.3], [0.0, 0.0, 0.0], [0.1, 0.1]):
        assert minimum_detectable_effect(nothing) is None
    for bad in (([0.1, np.nan],), ([[0.1, 0.2]],), ([0.1, 0.2], 1.0), ([0.1, 0.2], 0.8, 0.0)):
        with pytest.raises(BadInput):
            minimum_detectable_effect(*bad)


def draw_with_lengths(rng, problems, slope, effect):
    """Differences in pass@1 from 8 samples a problem, and in tokens: b writes 40 more on average; a token is worth
    `slope`, and b is better by `effect` beside."""
    difficulty = rng.uniform(0.25, 0.55, size=problems)
    tokens = np.clip(rng.normal(40, 40, size=problems), -80, 160).round()
    a, b = (rng.binomial(8, p) / 8 for p in (difficulty, difficulty + slope * tokens + effect))
    return b - a, tokens


@pytest.mark.parametrize("slope, effect", [(0.002, 0.0), (0.0, 0.08), (0.002, -0.08)])
def test_length_controlled_difference_is_the_one_at_equal_length(slope, effect):
    """The whole gain through length; none of it, which looks the same in the mean; a loss that length covers up."""
    rng, covered, plain, controlled = np.random.default_rng(9), 0, [], []
    for seed in range(600):
        differences, tokens = draw_with_lengths(rng, 150, slope, effect)
        interval = length_controlled(differences, tokens, resamples=500, seed=seed)
        covered += interval.low <= effect <= interval.high
        controlled.append(interval)
        plain.append(bootstrap_mean(differences, resamples=500, seed=seed))
    assert 0.91 <= covered / 600 <= 0.97  # percentile intervals of 150 problems: 0.94
    assert np.mean([c.mean for c in controlled]) == pytest.approx(effect, abs=0.004)  # standard error: 0.0012
    assert np.mean([p.mean for p in plain]) == pytest.approx(effect + 40 * slope, abs=0.004)
    wins = np.mean([c.low > 0 for c in controlled])
    assert wins > 0.6 if effect > 0 else wins < 0.06


def test_length_controlled_difference_is_the_intercept():
    rng = np.random.default_rng(10)
    tokens = rng.normal(-20, 30, size=300)
    differences = 0.05 - 0.001 * tokens + 0.1 * rng.normal(size=300)
    found = length_controlled(differences, tokens, resamples=4000)
    (intercept, slope), residual = np.polynomial.polynomial.polyfit(tokens, differences, 1), 0.1
    assert found.mean == pytest.approx(intercept, abs=1e-12) and slope < 0
    error = residual * np.sqrt(1 / 300 + tokens.mean() ** 2 / ((tokens - tokens.mean()) ** 2).sum())
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(error, rel=0.15)
    assert length_controlled(differences, tokens, resamples=400, seed=3) == length_controlled(
        differences, tokens, resamples=400, seed=3
    )


def test_answers_of_equal_length_are_compared_as_they_are():
    differences = np.random.default_rng(11).choice([-0.5, 0.0, 1.0], size=80)
    assert length_controlled(differences, np.zeros(80), 500) == bootstrap_mean(differences, 500)


def test_length_that_cannot_be_told_from_the_rest():
    rng = np.random.default_rng(12)
    assert length_controlled(rng.random(50), 12.3 + rng.normal(size=50) * 1e-13) is None
    assert length_controlled(rng.random(3), [1.0, 2.0, 3.0]) is None  # resamples of one problem alone
    assert length_controlled([0.1], [2.0]) is None and length_controlled([], []) is None
    for bad in (([0.1, 0.2], [1.0]), ([0.1, np.nan], [1.0, 2.0]), ([[0.1, 0.2]], [[1.0, 2.0]]), ([0.1], [np.inf])):
        with pytest.raises(BadInput):
            length_controlled(*bad)
    with pytest.raises(BadInput):
        length_controlled([0.1, 0.2], [1.0, 2.0], resamples=0)
