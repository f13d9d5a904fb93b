"""The training loop: rows in, an adapter out, the same bits whether or not it was interrupted.

Written under the directory that is given:

    train_log.jsonl   one line an optimizer step; no times, so that a resumed log is the same log
    checkpoints/      the last two (checkpoint.py)
    adapter/          written once, at the end (lora.py, full.py)
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import AdamW, clip_grad_norm
from mlx.utils import tree_flatten, tree_unflatten

from mlx_ssd.decoding.draw import Policy
from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.training import full, lora
from mlx_ssd.training.batches import BatchPlan, micro_batches
from mlx_ssd.training.checkpoint import Checkpoint, load_latest, prune, save
from mlx_ssd.training.documents import can_pack
from mlx_ssd.training.forward import output_head
from mlx_ssd.training.loss import Soft, step_gradient
from mlx_ssd.training.recompute import recomputed_layers
from mlx_ssd.training.rows import Fitted, fit_rows, hold_out
from mlx_ssd.training.schedule import learning_rate
from mlx_ssd.training.validation import Best, Validation

LOG = "train_log.jsonl"
METHODS = {"lora": lora, "full": full}
MOST_SKIPPED = 3  # steps in a row without a finite gradient: one may be a chance, a fourth will not be better


@dataclass(frozen=True)
class TrainResult:
    adapter: Path  # the folder to hand to mlx_lm.load as adapter_path
    steps: int  # done, those skipped included
    loss: float  # of the last step that was not skipped, nats a completion token
    completion_tokens: int  # trained on, over all epochs
    trainable_parameters: int
    packed: bool
    rows: Fitted
    skipped_steps: int
    best: Best | None  # where there is validation: the student that was written
    resumed_from: int  # the step at which this call took up the training; 0 if at the start
    warnings: tuple[str, ...]


def train(
    model: nn.Module,
    rows: Sequence[Any],
    settings: Any,
    directory: str | Path,
    identity: Mapping[str, Any],
    on_progress: Callable[..., None] | None = None,
    target_policy: Policy | None = None,
) -> TrainResult:
    """Train a student of `model` on `rows`, or go on where an earlier call with `directory` stopped.

    `model` is a bare mlx-lm model; it comes back in evaluation mode with the adapter attached. `rows` are described in
    rows.py. `settings` has method (lora, full) and what that needs (lora.py, full.py), targets, seed, learning_rate,
    warmup_fraction, final_fraction (schedule.py), betas, weight_decay, clip_norm (global), epochs or steps,
    rows_per_step, row_tokens (batches.py), gradient_checkpointing (bool; recompute.py), max_length, too_long (rows.py),
    validation (percent, every_steps, patience, or None; validation.py) and checkpoint_every_steps.
    The targets are 'tokens', the sampled ones, or 'distribution', the one that they were drawn from (targets.py):
    that takes `target_policy`, the policy that sampled the rows.
    `identity` must hold whatever changes the result: settings, hashes of rows and model, policy.
    `on_progress` is called after each step with total_steps and what the log holds of it.

    A step whose loss or gradient is not finite is skipped and counted. Raises BadInput for unusable rows, keys, targets
    or checkpoints; WorkFailed when too many steps in a row are skipped, or a weight is not finite: the last checkpoint
    is kept.
    """
    directory = Path(directory)
    fitted = fit_rows(rows, settings.max_length, settings.too_long)
    checkpoint, warnings = load_latest(directory / "checkpoints", identity)

    method = METHODS[settings.method]
    method.attach(model, settings)
    head, packed = output_head(model), can_pack(model)
    soft = _soft_targets(settings.targets, target_policy, method.base_of(model, head))
    training_rows, validation = fitted.rows, None
    if settings.validation:
        training_rows, held_out = hold_out(fitted.rows, settings.validation.percent)
        batches = list(micro_batches(held_out, settings.row_tokens, packed))
        validation = Validation(batches, settings.validation, soft)
    plan = BatchPlan(
        training_rows,
        rows_per_step=settings.rows_per_step,
        row_tokens=settings.row_tokens,
        packed=packed,
        seed=settings.seed,
    )
    total_steps = settings.steps or settings.epochs * plan.steps_per_epoch
    optimizer = _optimizer(model, settings)
    best = Best() if validation else None
    first_step = skipped_in_a_row = 0
    if checkpoint:
        prune(directory / "checkpoints", checkpoint.step)
        model.load_weights(list(checkpoint.adapter.items()), strict=False)
        optimizer.state = tree_unflatten(list(checkpoint.optimizer.items()))
        first_step, best, skipped_in_a_row = checkpoint.step, checkpoint.best, checkpoint.skipped_in_a_row

    model.train()
    log = _open_log(directory / LOG, checkpoint.log_bytes if checkpoint else 0)
    with log, recomputed_layers(model, settings.gradient_checkpointing):
        if validation and not checkpoint:
            # Of the base, so that the log shows what was gained.
            measured = validation.measure(model, head)
            best.see(0, measured.get("loss"), lora.adapter_weights(model))
            _write_entry(log, {"step": 0, "validation": measured})
        for step in range(first_step, total_steps):
            if validation and validation.is_over(best):
                break
            done = step + 1
            mx.random.seed(((settings.seed << 32) + step) % 2**64)  # dropout masks are a function of the step
            # Not under mx.compile: nearly every micro-batch has a shape of its own, and would compile anew.
            loss, gradient = step_gradient(model, head, plan.batches(*divmod(step, plan.steps_per_epoch)), soft)
            gradient, norm = clip_grad_norm(tree_unflatten(list(gradient.items())), settings.clip_norm)
            rate = learning_rate(
                step,
                total_steps,
                peak=settings.learning_rate,
                warmup_fraction=settings.warmup_fraction,
                final_fraction=settings.final_fraction,
            )
            entry = {"step": done, "learning_rate": rate, "completion_tokens": loss.tokens}
            if math.isfinite(loss.total) and math.isfinite(norm.item()):
                skipped_in_a_row = 0
                optimizer.learning_rate = rate
                optimizer.update(model, gradient)
                mx.eval(model.trainable_parameters(), optimizer.state)
                entry |= {"loss": loss.total, **loss.terms, "gradient_norm": norm.item()}
            else:
                skipped_in_a_row += 1
                entry["skipped"] = "loss" if not math.isfinite(loss.total) else "gradient"
                if skipped_in_a_row > MOST_SKIPPED:
                    raise _not_finite(f"the {entry['skipped']}, {skipped_in_a_row} steps in a row", done, settings)
            if validation and validation.is_due(done, total_steps):
                entry["validation"] = validation.measure(model, head)
                best.see(done, entry["validation"].get("loss"), lora.adapter_weights(model))
            _write_entry(log, entry)

            if done % settings.checkpoint_every_steps == 0 or done == total_steps:
                weights = lora.adapter_weights(model)
                if not all(mx.isfinite(array).all().item() for array in weights.values()):
                    raise _not_finite("a trained weight", done, settings)
                os.fsync(log.fileno())  # before the checkpoint that counts on it
                state = dict(tree_flatten(optimizer.state))
                save(
                    directory / "checkpoints",
                    Checkpoint(done, log.tell(), weights, state, best, skipped_in_a_row),
                    identity,
                )
            if on_progress:
                on_progress(total_steps=total_steps, **entry)

    model.eval()
    if best:
        model.load_weights(list(best.weights.items()), strict=False)
    method.write(model, settings, directory / "adapter")
    entries = [json.loads(line) for line in (directory / LOG).read_bytes().splitlines()]
    steps = [entry for entry in entries if entry["step"] > 0]
    trained = [entry for entry in steps if "loss" in entry]
    return TrainResult(
        adapter=directory / "adapter",
        steps=len(steps),
        loss=trained[-1]["loss"] if trained else math.nan,
        completion_tokens=sum(entry["completion_tokens"] for entry in trained),
        trainable_parameters=sum(array.size for array in lora.adapter_weights(model).values()),
        packed=packed,
        rows=fitted,
        skipped_steps=len(steps) - len(trained),
        best=best,
        resumed_from=first_step,
        warnings=tuple(warnings),
    )


def _soft_targets(targets: str, policy: Policy | None, base: Any) -> Soft | None:
    if targets not in ("tokens", "distribution"):
        raise BadInput(f"train.targets is {targets!r}: give tokens or distribution")
    if targets == "tokens":
        return None
    if policy is None:
        raise BadInput("train.targets is distribution: give target_policy, the policy that sampled the rows")
    return Soft(base, policy)


def _optimizer(model: nn.Module, settings: Any) -> AdamW:
    optimizer = AdamW(
        learning_rate=settings.learning_rate,
        betas=list(settings.betas),
        weight_decay=settings.weight_decay,
        # Off by default in MLX, always on in PyTorch and Megatron. Without it the first update is 0.45 of a
        # full one at betas (0.9, 0.95): a second warm-up that no recipe asked for.
        bias_correction=True,
    )
    optimizer.init(model.trainable_parameters())
    return optimizer


def _open_log(path: Path, size: int) -> BinaryIO:
    """The log, cut back to the `size` bytes that the checkpoint knows of, and ready to grow."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = open(path, "ab", buffering=0)
    if (found := log.tell()) < size:
        log.close()
        raise BadInput(
            f"{path} is shorter than its checkpoint says ({found} of {size} bytes): "
            "restore it, or remove the checkpoints to train afresh"
        )
    log.truncate(size)
    return log


def _write_entry(log: BinaryIO, entry: Mapping[str, Any]) -> None:
    log.write(json.dumps(entry, allow_nan=False).encode() + b"\n")


def _not_finite(what: str, step: int, settings: Any) -> WorkFailed:
    return WorkFailed(
        f"training stopped at step {step}: {what}: not finite. The last checkpoint is kept, none is written with such "
        f"numbers. If the base itself answers sensibly, a learning_rate below {settings.learning_rate:g} is worth a try; "
        "else its weights are damaged"
    )
