"""From grades to scores: unbiased pass@k with intervals, and paired differences between two arms.

pass@k is over the problems that have tests; without any it is absent, and what needs no tests is left: how long
answers are, how they end, how many hold a program.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from mlx_ssd import statistics
from mlx_ssd.recipe import Evaluation
from mlx_ssd.records import Comparison, Generation, Grade, Interval, McNemar, Problem, Score

BOOTSTRAP_SEED = 0  # intervals are a function of the grades alone


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


def pass_at(counts: Sequence[tuple[int, int]], k: int) -> np.ndarray | None:
    """pass@k of each problem; None where some problem has fewer than k samples."""
    samples, passes = np.array(counts, dtype=np.int64).reshape(-1, 2).T
    return statistics.pass_at_k_per_problem(samples, passes, k)


def score(
    arm: str,
    suite: str,
    decoding: str,
    problems: Sequence[Problem],
    generations: Sequence[Generation],
    grades: Sequence[Grade],
    evaluation: Evaluation,
) -> Score:
    """One arm's score. pass@k, its bootstrap interval over problems, and what goes beside it."""
    counts = passed(problems, grades)
    of_difficulty: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for problem, count in zip(graded(problems), counts, strict=True):
        if problem.difficulty:
            of_difficulty[problem.difficulty].append(count)
    by_difficulty: dict[str, dict[int, float]] = {name: {} for name in sorted(of_difficulty)}
    for k in evaluation.pass_at:
        for name, subset in of_difficulty.items():
            values = pass_at(subset, k)
            if values is not None:
                by_difficulty[name][k] = float(values.mean())
    verdicts = Counter(grade.verdict for grade in grades)
    return Score(
        arm=arm,
        suite=suite,
        decoding=decoding,
        problems=len(problems),
        graded_problems=len(counts),
        samples_per_problem=evaluation.samples_per_problem,
        pass_at=pass_at_intervals(counts, evaluation),
        pass_at_by_difficulty=by_difficulty,
        verdicts=dict(sorted(verdicts.items())),
        finish_reasons=dict(sorted(Counter(g.finish_reason for g in generations).items())),
        extractable_code=1 - verdicts["no_code"] / len(grades),
        completion_tokens=sum(len(g.completion_ids) for g in generations) / len(generations),
    )


def pass_at_intervals(counts: Sequence[tuple[int, int]], evaluation: Evaluation) -> dict[int, Interval]:
    """pass@k with its bootstrap interval over problems, for every k that can be estimated."""
    found = {}
    for k in evaluation.pass_at:
        values = pass_at(counts, k)
        interval = None if values is None else _bootstrap(values, evaluation)
        if interval:
            found[k] = _interval(interval)
    return found


def compare(
    baseline: Score,
    arm: Score,
    problems: Sequence[Problem],
    baseline_grades: Sequence[Grade],
    arm_grades: Sequence[Grade],
    evaluation: Evaluation,
) -> Comparison:
    """arm - baseline in pass@k, paired over problems, and what goes beside it."""
    before, after = passed(problems, baseline_grades), passed(problems, arm_grades)
    differences, detectable = {}, {}
    for k in evaluation.pass_at:
        a, b = pass_at(before, k), pass_at(after, k)
        if a is None or b is None:
            continue
        if interval := _bootstrap(b - a, evaluation):
            differences[k] = _interval(interval)
        if effect := statistics.minimum_detectable_effect(b - a):
            detectable[k] = effect
    return Comparison(
        baseline=baseline.arm,
        baseline_decoding=baseline.decoding,
        arm=arm.arm,
        decoding=arm.decoding,
        suite=arm.suite,
        difference=differences,
        minimum_detectable_effect=detectable or None,
        mcnemar=_mcnemar(before, after),
    )


def _mcnemar(before: Sequence[tuple[int, int]], after: Sequence[tuple[int, int]]) -> McNemar | None:
    """None unless both arms have exactly one sample of each problem."""
    if not before or {samples for samples, _ in (*before, *after)} != {1}:
        return None
    test = statistics.mcnemar(np.array([c for _, c in before]), np.array([c for _, c in after]))
    return McNemar(only_baseline=test.only_a, only_arm=test.only_b, p=test.p)


def _bootstrap(values: np.ndarray, evaluation: Evaluation) -> statistics.Interval | None:
    """None with fewer than two problems."""
    return statistics.bootstrap_mean(values, evaluation.bootstrap_resamples, BOOTSTRAP_SEED)


def _interval(value: statistics.Interval) -> Interval:
    return Interval(mean=value.mean, low=value.low, high=value.high)
