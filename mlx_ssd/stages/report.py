"""Report: every fact from the run's files -> report.json, report.md."""

from __future__ import annotations

import json
from pathlib import Path

from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.storage import hash_path, read_json, write_atomic, write_json

VERSION = 1


def settings(recipe: Recipe) -> dict:
    return {"name": recipe.name}


def check(recipe: Recipe) -> None:
    """Nothing but the recipe itself can be wrong beforehand."""


def inputs(recipe: Recipe, files: RunFiles) -> dict[str, str]:
    return {
        "scores": hash_path(files.scores),
        "curation": hash_path(files.curation),
        "training_log": hash_path(files.training_log),
    }


def outputs(recipe: Recipe, files: RunFiles) -> list[Path]:
    return [files.report_json, files.report_md]


def run(recipe: Recipe, files: RunFiles) -> dict:
    from mlx_ssd.report.facts import facts
    from mlx_ssd.report.markdown import render

    losses = [json.loads(line)["loss"] for line in files.training_log.read_text().splitlines()]
    collected = facts(
        recipe,
        str(files.directory),
        read_json(files.manifest),
        read_json(files.scores),
        read_json(files.curation),
        losses,
    )
    write_json(files.report_json, collected)
    # Read back, so that Markdown is rendered from what the file holds (JSON's string keys included).
    write_atomic(files.report_md, render(read_json(files.report_json)))
    return {}
