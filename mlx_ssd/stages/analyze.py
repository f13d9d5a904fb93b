"""Analyze: base and students read the same answers -> round-1/analysis (locks and forks, token by token)."""

from __future__ import annotations

from pathlib import Path

from mlx_ssd import arms, models
from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.storage import hash_path

VERSION = 2


def settings(recipe: Recipe) -> dict:
    trained = ["student", *(arm.name for arm in recipe.arms)]
    return {
        "analyze": recipe.analyze.model_dump(),
        "model": recipe.model.model_dump(),
        "sample": {name: recipe.of_arm(name).sample.decoding.model_dump() for name in trained},
        "evaluate": {name: recipe.of_arm(name).evaluate.decoding.model_dump() for name in trained},
        "bootstrap_resamples": recipe.evaluate.bootstrap_resamples,
    }


def check(recipe: Recipe) -> None:
    """Nothing but the recipe itself can be wrong beforehand."""


def inputs(recipe: Recipe, files: RunFiles) -> dict[str, str]:
    from mlx_ssd.analysis.texts import journals

    found = {"model": models.locate(recipe.model).revision}
    for arm in arms.students(recipe, files.directory):
        found[f"adapter of {arm.name}"] = hash_path(arm.files.adapter)
    for name, path in zip(("answers", "grades"), journals(recipe, files.directory), strict=True):
        found[name] = hash_path(path)
    return found


def outputs(recipe: Recipe, files: RunFiles) -> list[Path]:
    return [files.analysis]


def thrown_away(recipe: Recipe, files: RunFiles) -> list[Path]:
    """Nothing: a part says what it was made of, and is made anew where that has changed."""
    return []


def run(recipe: Recipe, files: RunFiles) -> dict:
    models.without_pytorch()
    from mlx_ssd.analysis.analysing import analyse, subject_of
    from mlx_ssd.analysis.texts import answers

    texts, source = answers(recipe, files.directory)
    measured = {}
    for arm in arms.students(recipe, files.directory):
        subject = subject_of(arm)
        measured[arm.name] = analyse(files.analysis, subject, texts, source, recipe.evaluate.bootstrap_resamples)
    return {"analyzed": measured}
