"""Score: pass@k of every arm and decoding, their paired differences, the curve -> scores.json."""

from __future__ import annotations

from pathlib import Path

from mlx_ssd import arms, rounds
from mlx_ssd.layout import BASE, RunFiles
from mlx_ssd.problems import identity, read_problems
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import CurvePoint, Problem
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
            for earlier in arms.history(recipe, files.directory, arm.name):
                round_ = "".join(f", {label}" for label in rounds.label(earlier.files))
                found[f"training problems of {arm.name}{round_}"] = hash_path(earlier.files.problems)
    return found


def outputs(recipe: Recipe, files: RunFiles) -> list[Path]:
    return [files.scores]


def run(recipe: Recipe, files: RunFiles) -> dict:
    from mlx_ssd.comparisons import compared, latest_grades, outcome
    from mlx_ssd.controls import curve_entries, test_entries
    from mlx_ssd.scoring import pass_at_intervals, passed

    problems = read_problems(recipe.problems.test, "test")
    outcomes = [outcome(entry, problems, recipe) for entry in test_entries(recipe, files.directory)]
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
                pass_at=pass_at_intervals(passed(validation, latest_grades(entry)), recipe.evaluate),
            )
        )
    write_json(
        files.scores,
        {
            "v": 2,
            **compared(recipe, files.directory, outcomes),
            "curve": [point.model_dump(mode="json") for point in curve],
            "trained_on": _trained_on(recipe, files, problems),
        },
    )
    return {}


def _trained_on(recipe: Recipe, files: RunFiles, problems: list[Problem]) -> dict[str, int]:
    """How many of the test problems each student has seen the prompt of."""
    tested = [hash_json(problem.prompt.split()) for problem in problems]
    found = {}
    for arm in arms.students(recipe, files.directory):
        asked = {
            hash_json(problem.prompt.split())
            for earlier in arms.history(recipe, files.directory, arm.name)
            for problem in Journal(earlier.files.problems, Problem).read()
        }
        found[arm.name] = sum(prompt in asked for prompt in tested)
    return found
