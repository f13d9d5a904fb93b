"""Train: LoRA on the model's own tokens -> round-1/adapter (mlx-lm's layout), checkpoints, the loss log."""

from __future__ import annotations

from pathlib import Path

from mlx_ssd import models
from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.storage import hash_json, hash_path

VERSION = 1


def settings(recipe: Recipe) -> dict:
    return {"seed": recipe.seed, "model": recipe.model.model_dump(), "train": recipe.train.model_dump()}


def inputs(recipe: Recipe, files: RunFiles) -> dict[str, str]:
    return {"model": models.locate(recipe.model).revision, "rows": hash_path(files.rows)}


def outputs(recipe: Recipe, files: RunFiles) -> list[Path]:
    return [files.adapter, files.checkpoints]


def run(recipe: Recipe, files: RunFiles) -> dict:
    from mlx_ssd.progress import progress
    from mlx_ssd.records import TrainingRow
    from mlx_ssd.storage import Journal
    from mlx_ssd.training.loop import train

    source = models.locate(recipe.model)
    model, _ = models.load(source, recipe.model.dtype)
    rows = Journal(files.rows, TrainingRow).read()
    fingerprint = hash_json([VERSION, settings(recipe), inputs(recipe, files)])
    raise NotImplementedError
