"""Train: LoRA on the model's own tokens -> round-1/{adapter,checkpoints,train_log.jsonl}."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mlx_ssd import models
from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.storage import hash_path

VERSION = 2
CACHE_SHARE = 0.1  # of the memory, at the least, for buffers that MLX keeps for use again


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

    import mlx.core as mx

    from mlx_ssd.decoding.policy import DecodingPolicy
    from mlx_ssd.model_size import ModelSize
    from mlx_ssd.progress import Progress
    from mlx_ssd.records import TrainingRow
    from mlx_ssd.sampling.memory import weight_bytes, working_set
    from mlx_ssd.storage import Journal
    from mlx_ssd.training.loop import train
    from mlx_ssd.training.rows import fit_rows, length
    from mlx_ssd.training_memory import TrainingMemory

    rows = Journal(files.rows, TrainingRow).read()
    longest = max(map(length, fit_rows(rows, recipe.train.max_length, recipe.train.too_long).rows))
    source = models.locate(recipe.model)
    model, _ = models.load(source, recipe.model.dtype)
    size = ModelSize.of(models.read_config(recipe.model))
    memory = working_set() if recipe.train.memory_gb is None else recipe.train.memory_gb * 1e9
    plan = TrainingMemory(size, recipe.train, weight_bytes(model), mx.metal.is_available()).plan(memory, longest)
    # Rows of every length leave behind buffers of every size, which are seldom of use again.
    mx.set_cache_limit(int(max(memory - plan.peak_bytes, CACHE_SHARE * memory)))

    chosen = recipe.train.model_dump() | {
        "validation": recipe.train.validation,
        "row_tokens": plan.row_tokens,
        "gradient_checkpointing": plan.gradient_checkpointing,
        "seed": recipe.seed,
    }
    identity = {**settings(recipe), "inputs": inputs(recipe, files), "version": VERSION}
    bar: Progress | None = None

    def show(step: int, total_steps: int, loss: float | None = None, **_: Any) -> None:
        nonlocal bar
        bar = bar or Progress("train", total_steps, step - 1, "steps")
        bar.update(step, "skipped" if loss is None else f"loss {loss:.3f}")

    policy = DecodingPolicy(**recipe.sample.decoding.model_dump())
    result = train(model, rows, SimpleNamespace(**chosen), files.round, identity, show, policy)
    if bar:
        bar.finish("" if result.loss is None else f"loss {result.loss:.3f}")
    measured = {
        "steps": result.steps,
        "resumed_from": result.resumed_from,
        "completion_tokens": result.completion_tokens,
        "trainable_parameters": result.trainable_parameters,
        "packed": result.packed,
        "row_tokens": plan.row_tokens,
        "gradient_checkpointing": plan.gradient_checkpointing,
        "expected_peak_bytes": round(plan.peak_bytes),
        "skipped_steps": result.skipped_steps,
        "too_long": {"dropped": result.rows.dropped, "cut": result.rows.cut},
    }
    if result.best:
        measured["best_step"] = result.best.step
    for note in (*result.warnings, *_notes(measured)):
        print(f"note: {note}", file=sys.stderr)
    return measured


def _notes(measured: dict[str, Any]) -> list[str]:
    steps, skipped = measured["steps"], measured["skipped_steps"]
    lost = {what: count for what, count in measured["too_long"].items() if count}
    found = [f"{count} training rows longer than train.max_length were {what}" for what, count in lost.items()]
    if skipped:
        found.append(f"{skipped} of {steps} steps were skipped: loss or gradient was not finite")
    if (best := measured.get("best_step", steps)) < steps:
        found.append(f"the student of step {best} of {steps} was kept: its loss on held-out samples is the lowest")
    return found
