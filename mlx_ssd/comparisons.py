"""From the journals of a problem set to the scores of all arms, and who is compared with whom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlx_ssd import arms
from mlx_ssd.controls import BASE_BEST, Entry, ideal_student, policy_of
from mlx_ssd.layout import BASE, MAIN
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Generation, Grade, Problem
from mlx_ssd.scoring import Answered, Outcome, compare, completion_tokens, passed, score
from mlx_ssd.storage import Journal


def outcome(entry: Entry, problems: Sequence[Problem], recipe: Recipe) -> Outcome:
    """Of these problems, and of as many samples as the recipe asks for: the journals may hold more."""
    asked = {(problem.id, i) for problem in problems for i in range(recipe.evaluate.samples_per_problem)}
    generations = [Answered.of(g) for g in Journal(entry.generations, Generation).each() if g.key in asked]
    grades = [grade for grade in latest_grades(entry) if grade.key in asked]
    return Outcome(
        score(entry.label, entry.suite, entry.policy.name(), problems, generations, grades, recipe.evaluate),
        passed(problems, grades),
        completion_tokens(problems, generations),
    )


def latest_grades(entry: Entry) -> list[Grade]:
    """The latest of each completion, by (problem, sample)."""
    latest = {grade.key: grade for grade in Journal(entry.grades, Grade).each()}
    return [latest[key] for key in sorted(latest)]


def compared(recipe: Recipe, directory: Path, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """{"scores", "comparisons"} as JSON. Each student is compared with those of its three controls that there are;
    the two-stage rule with the base's best, which is what can be had without training; the main student with the
    others."""
    of = {(outcome.score.arm, outcome.score.decoding): outcome for outcome in outcomes}
    best = next((key for key in of if key[0] == BASE_BEST), None)
    pairs: list[tuple[Any, Any]] = []
    students = []
    for arm in arms.students(recipe, directory):
        decoding = policy_of(arm.recipe.evaluate.decoding)
        ideal = ideal_student(arm, decoding)
        student = (arm.name, decoding.name())
        students.append(student)
        pairs += [((BASE, decoding.name()), student), (best, student)]
        if ideal:
            pairs += [((ideal.kind, ideal.name()), student)]
        if ideal and arm.name == MAIN:
            pairs += [(best, (ideal.kind, ideal.name()))]
    pairs += [(other, students[0]) for other in students[1:]]
    comparisons = [compare(of[a], of[b], recipe.evaluate) for a, b in pairs if a in of and b in of]
    return {
        "scores": [outcome.score.model_dump(mode="json") for outcome in outcomes],
        "comparisons": [comparison.model_dump(mode="json", exclude_none=True) for comparison in comparisons],
    }
