"""Report: every fact from the run's files -> report.json, report.md."""

from __future__ import annotations

import json
from pathlib import Path

from mlx_ssd import arms
from mlx_ssd.layout import MAIN, RunFiles
from mlx_ssd.problems import read_problems
from mlx_ssd.recipe import Recipe
from mlx_ssd.storage import hash_path, read_json, write_atomic, write_json

VERSION = 5


def settings(recipe: Recipe) -> dict:
    return {"name": recipe.name}


def check(recipe: Recipe) -> None:
    """Nothing but the recipe itself can be wrong beforehand."""


def inputs(recipe: Recipe, files: RunFiles) -> dict[str, str]:
    found = {"scores": hash_path(files.scores)}
    for arm in arms.students(recipe, files.directory):
        found[f"selection of {arm.name}"] = hash_path(arm.files.selection)
        found[f"curation of {arm.name}"] = hash_path(arm.files.curation)
        found[f"training log of {arm.name}"] = hash_path(arm.files.training_log)
    if files.plan.exists():
        found["plan"] = hash_path(files.plan)
    return found


def outputs(recipe: Recipe, files: RunFiles) -> list[Path]:
    return [files.report_json, files.report_md]


def run(recipe: Recipe, files: RunFiles) -> dict:
    from mlx_ssd.report.facts import arm_facts, facts
    from mlx_ssd.report.markdown import render

    measured = read_json(files.manifest)["stages"]
    trained = [
        arm_facts(
            arm.name,
            arm.recipe,
            read_json(arm.files.selection),
            read_json(arm.files.curation),
            [json.loads(line) for line in arm.files.training_log.read_text().splitlines()],
            measured["train" if arm.name == MAIN else f"train.{arm.name}"]["measured"],
        )
        for arm in arms.students(recipe, files.directory)
    ]
    chosen = arms.base(recipe, files.directory).files.best_decoding
    best = read_json(chosen) if recipe.evaluate.curve else None
    if recipe.evaluate.base_best:
        best = {"decoding": recipe.evaluate.base_best.model_dump()}
    collected = facts(
        recipe,
        str(files.directory),
        read_json(files.manifest),
        read_json(files.scores),
        trained,
        best,
        read_problems(recipe.problems.test, "test")[0].prompt,
        read_json(files.plan) if files.plan.exists() else None,
    )
    write_json(files.report_json, collected)
    # Read back, so that Markdown is rendered from what the file holds (JSON's string keys included).
    write_atomic(files.report_md, render(read_json(files.report_json)))
    return {}
