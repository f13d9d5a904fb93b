"""Train: LoRA on the model's own tokens -> round-1/{adapter,checkpoints,train_log.jsonl}."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mlx_ssd import models
from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.storage import hash_json, hash_path

VERSION = 2


def settings(recipe: Recipe) -> dict:
    # How a step's work is cut changes nothing but rounding: a training that ran out of memory can go on with less.
    settings = recipe.train.model_dump(exclude={"row_tokens", "gradient_checkpointing", "memory_gb"})
    chosen = {"seed": recipe.seed, "model": recipe.model.model_dump(), "train": settings}
    if recipe.train.targets == "distribution":
        chosen["decoding"] = recipe.sample.decoding.model_dump()
    return chosen


def check(recipe: Recipe) -> None:
    """Nothing but the recipe itself can be wrong beforehand."""


def inputs(recipe: Recipe, files: RunFiles) -> dict[str, str]:
    return {"model": models.locate(recipe.model).revision, "rows": hash_path(files.rows)}


def outputs(recipe: Recipe, files: RunFiles) -> list[Path]:
    return [files.adapter, files.checkpoints, files.training_log]


def run(recipe: Recipe, files: RunFiles) -> dict:
    from types import SimpleNamespace

    from mlx_ssd.decoding.policy import DecodingPolicy
    from mlx_ssd.progress import Progress
    from mlx_ssd.records import TrainingRow
    from mlx_ssd.storage import Journal
    from mlx_ssd.training.loop import train

    source = models.locate(recipe.model)
    model, _ = models.load(source, recipe.model.dtype)
    rows = Journal(files.rows, TrainingRow).read()
    trainer = SimpleNamespace(**recipe.train.model_dump(), seed=recipe.seed)
    fingerprint = hash_json([VERSION, settings(recipe), inputs(recipe, files)])[:16]
    bar: Progress | None = None

    def show(step: int, total_steps: int, loss: float, **_: Any) -> None:
        nonlocal bar
        bar = bar or Progress("train", total_steps, step - 1, "steps")
        bar.update(step, f"loss {loss:.3f}")

    policy = DecodingPolicy(**recipe.sample.decoding.model_dump())
    result = train(model, rows, trainer, files.round, fingerprint, show, policy)
    if bar:
        bar.finish(f"loss {result.loss:.3f}")
    for warning in result.warnings:
        print(f"note: {warning}", file=sys.stderr)
    return {
        "steps": result.steps,
        "resumed_from": result.resumed_from,
        "completion_tokens": result.completion_tokens,
        "trainable_parameters": result.trainable_parameters,
    }
