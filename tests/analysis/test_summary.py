"""Means, shares and intervals by hand; sentences that say what can be told and what cannot."""

import numpy as np
import pytest

from mlx_ssd.analysis import store, words
from mlx_ssd.analysis.labels import ALTERNATIVES, BETWEEN, FORK, LOCK, RULE, by_entropy, by_support
from mlx_ssd.analysis.summary import METRICS, ratio, summarise
from mlx_ssd.decoding.policy import DecodingPolicy
from tests.analysis.made import columns, text, top

POLICIES = DecodingPolicy(1.6, 20, 0.8), DecodingPolicy(0.9, 20, 0.8)
PROBLEMS = 24


def test_the_rule_by_hand():
    found = {"base.top_probabilities": top([0.9, 0.899, 0.899, 0.5, 0.5], [0.1, 0.1, 0.09, 0.1, 0.0999])}
    np.testing.assert_array_equal(RULE.labels(found), [LOCK, FORK, BETWEEN, FORK, BETWEEN])
    found = {"support": np.array([1, 2, 3, 20]), "base.entropy": np.array([0.1, 0.229, 0.23, 2.0])}
    np.testing.assert_array_equal(by_support(2, 3).labels(found), [LOCK, LOCK, FORK, FORK])
    np.testing.assert_array_equal(by_entropy(0.23).labels(found), [LOCK, LOCK, FORK, FORK])


def analysis(folder, arm="student", removed=0.5, grown=0.2, noise=0.0, problems=PROBLEMS, seed=0, tail=1.0):
    """Of texts with two locks, a fork and a token between: the student removes `removed` of the locks' tail mass."""
    rng = np.random.default_rng(seed)
    texts = [text(f"p{number}", 4) for number in range(problems)]
    first, second = np.tile([0.95, 0.99, 0.5, 0.7], problems), np.tile([0.01, 0.005, 0.3, 0.05], problems)
    tail = tail * np.tile([0.04, 0.02, 0.1, 0.1], problems) * rng.uniform(0.8, 1.2, 4 * problems)
    swing = noise * np.repeat((-1.0) ** np.arange(problems), 4)  # from problem to problem, 0 on the whole
    after = tail * (1 - removed) + swing
    chosen = {
        "base__top_probabilities": top(first, second),
        "base__kept_mass": 1 - tail,
        "student__kept_mass": 1 - after,
        "base__head": 0.5,
        "student__head": 0.5 + grown + swing,
    }
    whole = columns(0, [4] * problems, **chosen)
    half = problems // 2  # in two parts
    for number, chunk in enumerate((slice(0, half), slice(half, problems))):
        tokens = slice(4 * chunk.start, 4 * chunk.stop)
        cut = {name: values[tokens if name in store.COLUMNS else chunk] for name, values in whole.items()}
        if chunk.start < chunk.stop:
            file = store.part_file(folder, arm, number)
            store.write_part(file, chunk.start, chunk.stop - chunk.start, cut)
    return whole, summarise(folder, arm, texts, "texts of a test", "sha", *POLICIES, resamples=500)


def test_means_and_shares_by_hand(tmp_path):
    whole, found = analysis(tmp_path)
    assert {label: found["labels"][label]["share"] for label in store.LABELS} == {
        "lock": 0.5, "between": 0.25, "fork": 0.25,
    }  # fmt: skip
    locks = np.tile([True, True, False, False], PROBLEMS)
    tail = 1 - whole["base.kept_mass"].astype(float)
    lock = found["labels"]["lock"]
    assert lock["tokens"] == 2 * PROBLEMS
    assert lock["base"]["tail_mass"] == pytest.approx(tail[locks].mean())
    assert lock["student"]["tail_mass"] == pytest.approx(tail[locks].mean() / 2, rel=1e-4)
    assert lock["base"]["top1"] == pytest.approx(0.97)
    assert found["all"]["base"]["entropy"] == pytest.approx(whole["base.entropy"].mean())
    assert set(lock["difference"]) == set(METRICS)
    change = lock["difference"]["tail_mass"]
    assert change["mean"] == pytest.approx(-tail[locks].mean() / 2, rel=1e-4)
    assert change["low"] < change["mean"] < change["high"] < 0
    assert found["gain"]["fork"]["ideal"] == pytest.approx(whole["gain.ideal"][2::4].mean())
    assert found["mass_by_rank"]["base"][0] == pytest.approx(PROBLEMS / (4 * PROBLEMS))
    assert found["texts"]["tokens"] == 4 * PROBLEMS and len(found["sensitivity"]) == 1 + len(ALTERNATIVES)


def test_residuals_are_those_of_the_columns(tmp_path):
    whole, found = analysis(tmp_path)
    left = whole["base.entropy"].astype(float) - whole["base.gate"] - whole["base.head"] - whole["base.tail"]
    assert found["residuals"]["base: entropy = gate + head + tail"] == pytest.approx(np.abs(left).max())


def test_intervals_are_over_problems_and_weigh_tokens():
    rng = np.random.default_rng(1)
    counts = rng.integers(1, 20, size=200).astype(float)
    sums = counts * 0.3 + np.sqrt(counts) * rng.normal(size=200)
    found = ratio(sums, counts, 2000)
    assert found["mean"] == pytest.approx(sums.sum() / counts.sum())
    drawn = rng.integers(200, size=(2000, 200))
    low, high = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [0.025, 0.975])
    assert (found["low"], found["high"]) == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))
    assert ratio(sums[:1], counts[:1], 100) is None
    assert ratio(np.array([1.0, np.inf]), np.ones(2), 100) is None
    assert ratio(np.array([1.0, 0.0, 0.0]), np.array([3.0, 0, 0]), 100) is None


def test_finding_says_what_was_removed_and_kept(tmp_path):
    _, found = analysis(tmp_path, removed=0.5, grown=0.2)
    locks, forks, rule, measured = found["finding"]
    assert "At locks (50% of tokens) training removed 50.0% [50.0%, 50.0%] of the tail mass" in locks
    assert "grew from 0.500 to 0.700 nats, +0.200 [+0.200, +0.200]: choice was kept" in forks
    assert RULE.words in rule and f"By {len(ALTERNATIVES)} other rules" in rule
    assert "96 tokens of 24 texts, texts of a test" in measured and "24 problems" in measured


def test_finding_says_where_it_went_the_other_way(tmp_path):
    _, found = analysis(tmp_path, removed=-0.5, grown=-0.2)
    assert "training added tail mass" in found["finding"][0] and "50.0% [50.0%, 50.0%] more" in found["finding"][0]
    assert "fell from 0.500 to 0.300" in found["finding"][1] and "choice was lost" in found["finding"][1]


def test_finding_says_what_cannot_be_told(tmp_path):
    _, found = analysis(tmp_path, removed=0.0, grown=0.0, noise=0.01)
    assert "cannot be told whether training removed tail mass" in found["finding"][0]
    assert "cannot be told whether the entropy of the head changed" in found["finding"][1]


def test_few_problems_decide_nothing(tmp_path):
    _, found = analysis(tmp_path, problems=19)
    assert all("in so few problems it cannot be told from chance" in sentence for sentence in found["finding"][:2])


@pytest.mark.parametrize("tail", [0.0, 1e-6])
@pytest.mark.parametrize("problems", [19, PROBLEMS])
def test_where_sampling_cuts_nothing_off_there_is_no_tail_to_remove(tmp_path, tail, problems):
    _, found = analysis(tmp_path, tail=tail, problems=problems)
    locks, _, rule, _ = found["finding"]
    assert locks.endswith("as where sampling cuts nothing off: there is no tail to remove.")
    assert "tail mass" not in rule


def test_one_problem_has_no_interval(tmp_path):
    _, found = analysis(tmp_path, problems=1)
    assert found["labels"]["lock"]["difference"] == {} and "lock_tail_mass" not in found["sensitivity"][0]
    assert all("cannot be told from chance" in sentence for sentence in found["finding"][:2])
    assert any("->" in line for line in words.lines(found))


def test_the_table_of_the_terminal(tmp_path):
    _, found = analysis(tmp_path)
    said = list(words.lines(found))
    lock = next(line for line in said if line.startswith("lock"))
    assert "50.0%" in lock and "0.500 -> 0.700" in lock
    assert max(map(len, said[:6])) <= 100
