"""From grades to scores: unbiased pass@k with intervals, and paired differences between two arms.

pass@k is over the problems that have tests; without any it is absent, and what needs no tests is left: how long
answers are, how they end, how many hold a program.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlx_ssd import statistics
from mlx_ssd.records import (
    Comparison,
    Completion,
    FinishReason,
    Grade,
    Interval,
    LengthControlled,
    McNemar,
    Problem,
    Score,
)
from mlx_ssd.sections import Evaluation

BOOTSTRAP_SEED = 0  # intervals are a function of the grades and lengths alone


@dataclass(frozen=True)
class Answered:
    """What a score needs of a completion: its tokens are counted, not held."""

    problem_id: str
    tokens: int
    finish_reason: FinishReason

    @classmethod
    def of(cls, completion: Completion) -> Answered:
        return cls(completion.problem_id, completion.tokens, completion.finish_reason)


@dataclass(frozen=True)
class Outcome:
    """What an arm's comparisons are made of; of the problems that have tests, in order."""

    score: Score
    counts: list[tuple[int, int]]  # (samples, passes)
    tokens: list[float]  # mean completion tokens


def graded(problems: Sequence[Problem]) -> list[Problem]:
    return [problem for problem in problems if problem.tests]


def passed(problems: Sequence[Problem], grades: Sequence[Grade]) -> list[tuple[int, int]]:
    """(samples, passes) of each problem that has tests, in order. A harness_error is no sample at all."""
    samples: Counter[str] = Counter()
    passes: Counter[str] = Counter()
    for grade in grades:
        if grade.verdict != "harness_error":
            samples[grade.problem_id] += 1
            passes[grade.problem_id] += grade.verdict == "pass"
    return [(samples[p.id], passes[p.id]) for p in graded(problems)]


def completion_tokens(problems: Sequence[Problem], generations: Sequence[Answered | Completion]) -> list[float]:
    """Mean completion tokens of each problem that has tests, in order; NaN without a generation."""
    lengths: dict[str, list[int]] = defaultdict(list)
    for generation in generations:
        lengths[generation.problem_id].append(generation.tokens)
    return [float(np.mean(lengths[p.id])) if p.id in lengths else float("nan") for p in graded(problems)]


def pass_at(counts: Sequence[tuple[int, int]], k: int) -> np.ndarray | None:
    """pass@k of each problem; None where some problem has fewer than k samples."""
    samples, passes = np.array(counts, dtype=np.int64).reshape(-1, 2).T
    return statistics.pass_at_k_per_problem(samples, passes, k)


def score(
    arm: str,
    suite: str,
    decoding: str,
    problems: Sequence[Problem],
    generations: Sequence[Answered | Completion],
    grades: Sequence[Grade],
    evaluation: Evaluation,
) -> Score:
    """One arm's score. pass@k, its bootstrap interval over problems, and what goes beside it."""
    counts = passed(problems, grades)
    verdicts = Counter(grade.verdict for grade in grades)
    return Score(
        arm=arm,
        suite=suite,
        decoding=decoding,
        problems=len(problems),
        graded_problems=len(counts),
        samples_per_problem=evaluation.samples_per_problem,
        pass_at=pass_at_intervals(counts, evaluation),
        pass_at_by_difficulty=by_difficulty(problems, counts, evaluation.pass_at),
        verdicts=dict(sorted(verdicts.items())),
        finish_reasons=dict(sorted(Counter(g.finish_reason for g in generations).items())),
        extractable_code=1 - verdicts["no_code"] / len(grades),
        completion_tokens=sum(g.tokens for g in generations) / len(generations),
    )


def by_difficulty(
    problems: Sequence[Problem], counts: Sequence[tuple[int, int]], ks: Sequence[int]
) -> dict[str, dict[int, float]]:
    """pass@k over the problems of each difficulty, for every k that can be estimated there. counts: as `passed`."""
    subsets: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for problem, count in zip(graded(problems), counts, strict=True):
        if problem.difficulty:
            subsets[problem.difficulty].append(count)
    means = {name: {k: pass_at(subset, k) for k in ks} for name, subset in sorted(subsets.items())}
    return {name: {k: float(v.mean()) for k, v in of.items() if v is not None} for name, of in means.items()}


def pass_at_means(counts: Sequence[tuple[int, int]], evaluation: Evaluation) -> dict[int, dict[str, float]]:
    """{k: {"mean", "low", "high"}} for every k that can be estimated; one problem has a mean and no interval."""
    found = {}
    for k in evaluation.pass_at:
        values = pass_at(counts, k)
        if values is not None and len(values):
            interval = _bootstrap(values, evaluation)
            found[k] = _interval(interval).model_dump() if interval else {"mean": float(values.mean())}
    return found


def pass_at_intervals(counts: Sequence[tuple[int, int]], evaluation: Evaluation) -> dict[int, Interval]:
    """pass@k with its bootstrap interval over problems, for every k that can be estimated."""
    found = {}
    for k in evaluation.pass_at:
        values = pass_at(counts, k)
        interval = None if values is None else _bootstrap(values, evaluation)
        if interval:
            found[k] = _interval(interval)
    return found


def compare(baseline: Outcome, arm: Outcome, evaluation: Evaluation) -> Comparison:
    """arm - baseline in pass@k, paired over problems, and what goes beside it. Both are of the same problems."""
    differences, detectable = {}, {}
    for k in evaluation.pass_at:
        a, b = pass_at(baseline.counts, k), pass_at(arm.counts, k)
        if a is None or b is None:
            continue
        if interval := _bootstrap(b - a, evaluation):
            differences[k] = _interval(interval)
        if effect := statistics.minimum_detectable_effect(b - a):
            detectable[k] = effect
    return Comparison(
        baseline=baseline.score.arm,
        baseline_decoding=baseline.score.decoding,
        arm=arm.score.arm,
        decoding=arm.score.decoding,
        suite=arm.score.suite,
        difference=differences,
        minimum_detectable_effect=detectable or None,
        mcnemar=_mcnemar(baseline.counts, arm.counts),
        length_controlled=_length_controlled(baseline, arm, evaluation) if 1 in differences else None,
    )


def _mcnemar(before: Sequence[tuple[int, int]], after: Sequence[tuple[int, int]]) -> McNemar | None:
    """None unless both arms have exactly one sample of each problem."""
    if not before or {samples for samples, _ in (*before, *after)} != {1}:
        return None
    test = statistics.mcnemar(np.array([c for _, c in before]), np.array([c for _, c in after]))
    return McNemar(only_baseline=test.only_a, only_arm=test.only_b, p=test.p)


def _length_controlled(baseline: Outcome, arm: Outcome, evaluation: Evaluation) -> LengthControlled | None:
    """Of pass@1, which both arms have."""
    difference = pass_at(arm.counts, 1) - pass_at(baseline.counts, 1)
    tokens = np.array(arm.tokens) - baseline.tokens
    found = statistics.length_controlled(difference, tokens, evaluation.bootstrap_resamples, BOOTSTRAP_SEED)
    if not found:
        return None
    return LengthControlled(
        difference=_interval(found),
        baseline_tokens=float(np.mean(baseline.tokens)),
        arm_tokens=float(np.mean(arm.tokens)),
    )


def _bootstrap(values: np.ndarray, evaluation: Evaluation) -> statistics.Interval | None:
    """None with fewer than two problems."""
    return statistics.bootstrap_mean(values, evaluation.bootstrap_resamples, BOOTSTRAP_SEED)


def _interval(value: statistics.Interval) -> Interval:
    return Interval(mean=value.mean, low=value.low, high=value.high)
