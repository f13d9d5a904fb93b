"""Score: pass@k of every arm and decoding, their paired differences, the curve -> scores.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlx_ssd import arms
from mlx_ssd.layout import BASE, MAIN, RunFiles
from mlx_ssd.problems import identity, read_problems
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Comparison, CurvePoint, Generation, Grade, Problem
from mlx_ssd.storage import Journal, hash_json, hash_path, write_json

VERSION = 2


def settings(recipe: Recipe) -> dict:
    return {
        "evaluate": recipe.evaluate.model_dump(
            include={"pass_at", "bootstrap_resamples", "decoding", "base_best", "two_stage", "curve"}
        ),
        "arms": [arm.model_dump() for arm in recipe.arms],
    }


def check(recipe: Recipe) -> None:
    """Nothing but the recipe itself can be wrong beforehand."""


def inputs(recipe: Recipe, files: RunFiles) -> dict[str, str]:
    found = {"problems.test": identity(recipe.problems.test, "test")}
    if recipe.evaluate.curve and recipe.problems.validation:
        found["problems.validation"] = identity(recipe.problems.validation, "validation")
    for arm in (arms.base(recipe, files.directory), *arms.students(recipe, files.directory)):
        found[f"evaluation of {arm.name}"] = hash_path(arm.files.evaluation)
        if arm.name != BASE:
            found[f"training problems of {arm.name}"] = hash_path(arm.files.problems)
    return found


def outputs(recipe: Recipe, files: RunFiles) -> list[Path]:
    return [files.scores]


def run(recipe: Recipe, files: RunFiles) -> dict:
    from mlx_ssd.controls import curve_entries, test_entries
    from mlx_ssd.scoring import pass_at_intervals, passed

    problems = read_problems(recipe.problems.test, "test")
    outcomes = [_outcome(entry, problems, recipe) for entry in test_entries(recipe, files.directory)]
    curve, validation = [], []
    if recipe.evaluate.curve and recipe.problems.validation:
        validation = read_problems(recipe.problems.validation, "validation")
    for entry in curve_entries(recipe, files.directory):
        evaluation = entry.policy.stages[-1]
        curve.append(
            CurvePoint(
                arm=entry.label,
                suite=entry.suite,
                decoding=entry.policy.name(),
                temperature=evaluation.temperature,
                top_p=evaluation.top_p,
                pass_at=pass_at_intervals(passed(validation, _grades(entry)), recipe.evaluate),
            )
        )
    write_json(
        files.scores,
        {
            "v": 2,
            "scores": [outcome.score.model_dump(mode="json") for outcome in outcomes],
            "comparisons": [
                comparison.model_dump(mode="json", exclude_none=True)
                for comparison in _comparisons(recipe, files, outcomes)
            ],
            "curve": [point.model_dump(mode="json") for point in curve],
            "trained_on": _trained_on(recipe, files, problems),
        },
    )
    return {}


def _outcome(entry: Any, problems: list[Problem], recipe: Recipe) -> Any:
    from mlx_ssd.scoring import Outcome, completion_tokens, passed, score

    generations, grades = Journal(entry.generations, Generation).read(), _grades(entry)
    return Outcome(
        score(entry.label, entry.suite, entry.policy.name(), problems, generations, grades, recipe.evaluate),
        passed(problems, grades),
        completion_tokens(problems, generations),
    )


def _grades(entry: Any) -> list[Grade]:
    """The latest of each completion, by (problem, sample)."""
    latest = {grade.key: grade for grade in Journal(entry.grades, Grade).read()}
    return [latest[key] for key in sorted(latest)]


def _comparisons(recipe: Recipe, files: RunFiles, outcomes: list) -> list[Comparison]:
    """Each student against its three controls; the two-stage rule against the base's best, which is what can be had
    without training; the main student against the others."""
    from mlx_ssd.controls import BASE_BEST, TWO_STAGE, policy_of, two_stage_of
    from mlx_ssd.scoring import compare

    of = {(outcome.score.arm, outcome.score.decoding): outcome for outcome in outcomes}
    best = next((key for key in of if key[0] == BASE_BEST), None)
    pairs: list[tuple[Any, Any]] = []
    students = []
    for arm in arms.students(recipe, files.directory):
        decoding = policy_of(arm.recipe.evaluate.decoding)
        two_stage = two_stage_of(arm.recipe, decoding)
        student = (arm.name, decoding.name())
        students.append(student)
        pairs += [((BASE, decoding.name()), student), (best, student)]
        if two_stage:
            pairs += [((TWO_STAGE, two_stage.name()), student)]
        if two_stage and arm.name == MAIN:
            pairs += [(best, (TWO_STAGE, two_stage.name()))]
    pairs += [(other, students[0]) for other in students[1:]]
    return [compare(of[a], of[b], recipe.evaluate) for a, b in pairs if a in of and b in of]


def _trained_on(recipe: Recipe, files: RunFiles, problems: list[Problem]) -> dict[str, int]:
    """How many of the test problems each student has seen the prompt of."""
    tested = [hash_json(problem.prompt.split()) for problem in problems]
    found = {}
    for arm in arms.students(recipe, files.directory):
        asked = {hash_json(problem.prompt.split()) for problem in Journal(arm.files.problems, Problem).read()}
        found[arm.name] = sum(prompt in asked for prompt in tested)
    return found
