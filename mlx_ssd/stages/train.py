"""Train: the student on the model's own tokens -> round-1/{adapter,checkpoints,train_log.jsonl}."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlx_ssd import heartbeat, models, rounds
from mlx_ssd.budget import ModelSize, TrainingPlan, UnusualModel, training_plan
from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.sections import Training
from mlx_ssd.storage import hash_path

VERSION = 3
# Of the recipe's part: how a step's work is cut, and how often it is saved. It changes nothing but rounding (the latter
# only between ranks on other chips), so a training that ran out of memory can go on with less.
UNCOUNTED = frozenset({"row_tokens", "gradient_checkpointing", "memory_gb", "checkpoint_every_steps"})
# Of the memory: buffers that MLX keeps for reuse. A buffer serves again for about its own size alone, and nearly every
# row has a length of its own: without a limit each of them leaves its buffers behind.
CAUTIOUS_ROW = 1024  # tokens, where the memory of a model cannot be computed


def settings(recipe: Recipe) -> dict:
    settings = recipe.train.model_dump(exclude=set(UNCOUNTED))
    chosen = {"seed": recipe.seed, "model": recipe.model.model_dump(), "train": settings}
    if recipe.train.targets == "distribution":
        chosen["decoding"] = recipe.sample.decoding.model_dump()
    return chosen


def check(recipe: Recipe) -> None:
    """Nothing but the recipe itself can be wrong beforehand."""


def inputs(recipe: Recipe, files: RunFiles) -> dict[str, str]:
    found = {"model": models.locate(recipe.model).revision, "rows": hash_path(files.rows)}
    of_before = {"teacher": rounds.teacher(recipe, files), "beginning": rounds.beginning(recipe, files)}
    return found | {name: hash_path(adapter) for name, adapter in of_before.items() if adapter}


def outputs(recipe: Recipe, files: RunFiles) -> list[Path]:
    return [files.adapter, files.checkpoints, files.training_log]


def run(recipe: Recipe, files: RunFiles) -> dict:
    from types import SimpleNamespace

    import mlx.core as mx

    from mlx_ssd.decoding.policy import DecodingPolicy
    from mlx_ssd.distributed.training import ranks
    from mlx_ssd.machine.working_set import CACHE_SHARE, working_set
    from mlx_ssd.progress import Progress
    from mlx_ssd.records import TrainingRow
    from mlx_ssd.storage import Journal
    from mlx_ssd.training.loop import train

    source = models.locate(recipe.model)
    model, _ = models.load(source, recipe.model.dtype)
    rows = Journal(files.rows, TrainingRow).read()
    asked = recipe.train.memory_gb
    memory = heartbeat.budget(int(1e9 * asked) if asked else working_set())
    plan = _plan(model, models.read_config(recipe.model), rows, recipe.train, memory)
    mx.set_cache_limit(int(CACHE_SHARE * memory))
    chosen = recipe.train.model_dump() | {"validation": recipe.train.validation, "seed": recipe.seed}
    chosen |= {"row_tokens": plan.row_tokens, "gradient_checkpointing": plan.gradient_checkpointing}
    identity = {**settings(recipe), "inputs": inputs(recipe, files), "version": VERSION}
    bar: Progress | None = None

    def show(step: int, total_steps: int, loss: float | None = None, **_: Any) -> None:
        nonlocal bar
        bar = bar or Progress(" ".join(["train", *rounds.label(files)]), total_steps, step - 1, "steps")
        bar.update(step, "skipped" if loss is None else f"loss {loss:.3f}")

    policy = DecodingPolicy(**recipe.sample.decoding.model_dump())
    of_before = {"teacher": rounds.teacher(recipe, files), "beginning": rounds.beginning(recipe, files)}
    how = SimpleNamespace(**chosen)
    with ranks(files) as together:
        result = train(model, rows, how, files.round, identity, show, policy, ranks=together, **of_before)
    if bar:
        bar.finish("" if result.loss is None else f"loss {result.loss:.3f}")
    for note in (*result.warnings, *_notes(result, recipe.train)):
        print(f"note: {note}", file=sys.stderr)
    best = result.best
    found = {
        "steps": result.steps,
        "resumed_from": result.resumed_from,
        "completion_tokens": result.completion_tokens,
        "trainable_parameters": result.trainable_parameters,
        "ranks": together.size if together.size > 1 else None,
        "packed": result.packed,
        "row_tokens": plan.row_tokens,
        "gradient_checkpointing": plan.gradient_checkpointing,
        "rows_dropped": result.rows.dropped or None,
        "rows_cut": result.rows.cut or None,
        "skipped_steps": result.skipped_steps or None,
        "best_step": best.step if best and best.weights else None,
        "validation_loss": best.loss if best and best.weights else None,
        "predicted_peak_bytes": plan.peak_bytes and round(plan.peak_bytes),
    }
    return {name: value for name, value in found.items() if value is not None}


def _plan(model: Any, config: dict[str, Any], rows: list[Any], train: Training, memory: int) -> TrainingPlan:
    """How a step's work is cut, from the model as it is loaded and the rows as they are."""
    import mlx.core as mx
    from mlx.utils import tree_flatten

    from mlx_ssd.sampling.memory import weight_bytes
    from mlx_ssd.training.forward import output_head
    from mlx_ssd.training.rows import fit_rows, length

    lengths = [length(row) - 1 for row in fit_rows(rows, train.max_length, train.too_long).rows]
    step_tokens = -(-sum(lengths) * min(train.rows_per_step, len(lengths)) // len(lengths))
    try:
        size = ModelSize.of(config)
    except UnusualModel:
        row_tokens, recompute = train.row_tokens or CAUTIOUS_ROW, train.gradient_checkpointing is not False
        return TrainingPlan(row_tokens, recompute, None)
    kinds = {array.dtype for _, array in tree_flatten(model.parameters())}
    return training_plan(
        size,
        train,
        weight_bytes(model),
        memory,
        max(lengths),
        step_tokens,
        dtype=next((name for name in ("float16", "bfloat16") if getattr(mx, name) in kinds), "float32"),
        plain_head=output_head(model) is not None,
    )


def _notes(result: Any, train: Training) -> Iterator[str]:
    rows, best = result.rows, result.best
    for count, what in ((rows.dropped, "left out"), (rows.cut, "cut")):
        if count:
            yield f"{count} training rows were longer than train.max_length {train.max_length} and were {what}"
    if result.skipped_steps:
        yield f"{result.skipped_steps} of {result.steps} steps had no finite loss or gradient and were skipped"
    if not best or not best.weights:
        return
    if train.validation.patience is not None and best.worse_since >= train.validation.patience:
        yield f"training ended at step {result.steps}: {best.worse_since} validations without a better loss"
    if best.step == 0:
        yield "no step made the loss on held-out samples smaller: the student is the base itself"
    elif best.step < result.steps:
        yield f"the student is that of step {best.step}, where the loss on held-out samples was smallest"
