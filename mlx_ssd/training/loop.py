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
from mlx_ssd.training.checkpoint import Checkpoint, Pace, load_latest, prune, save
from mlx_ssd.training.documents import can_pack
from mlx_ssd.training.forward import output_head
from mlx_ssd.training.loss import Loss, Soft, step_gradient
from mlx_ssd.training.ranks import Ranks
from mlx_ssd.training.recompute import recomputed_layers
from mlx_ssd.training.rows import Fitted, fit_rows, hold_out
from mlx_ssd.training.schedule import learning_rate
from mlx_ssd.training.targets import Base
from mlx_ssd.training.teacher import read_weights, wearing
from mlx_ssd.training.validation import Best, Validation

LOG = "train_log.jsonl"
METHODS = {"lora": lora, "full": full}
MOST_SKIPPED = 3  # steps in a row without a finite gradient: one may be a chance, a fourth will not be better


@dataclass(frozen=True)
class TrainResult:
    adapter: Path  # the folder to hand to mlx_lm.load as adapter_path
    steps: int  # done, those skipped included
    loss: float | None  # of the last step that was not skipped, nats a completion token
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
    teacher: Path | None = None,
    beginning: Path | None = None,
    ranks: Ranks | None = None,
) -> TrainResult:
    """Train a student of `model` on `rows`, or go on where an earlier call with `directory` stopped.

    `model` is a bare mlx-lm model; it comes back in evaluation mode with the adapter attached. `rows` are described in
    rows.py. `settings` has method (lora, full) and what that needs (lora.py, full.py), targets, seed, learning_rate,
    warmup_fraction, final_fraction (schedule.py), betas, weight_decay, clip_norm (global), epochs or steps,
    rows_per_step, row_tokens (batches.py), gradient_checkpointing (bool; recompute.py), max_length, too_long (rows.py),
    validation (percent, every_steps, patience, or None; validation.py) and checkpoint_every_steps: a checkpoint is
    saved so often, and after a step that ends when one is due by the clock (checkpoint.Pace).
    The targets are 'tokens', the sampled ones, or 'distribution', the one that they were drawn from (targets.py):
    that takes `target_policy`, the policy that sampled the rows. With tokens it adds the terms of that loss to what is
    measured on held-out samples. `teacher` is the folder of the adapter that drew the rows, where the base did not;
    `beginning` that of the adapter that the student goes on from, in place of a fresh one.
    `identity` must hold whatever changes the result: settings, hashes of rows and model, policy.
    `on_progress` is called after each step with total_steps and what the log holds of it.

    `ranks`: who trains together, each a process that calls this with the same rows and settings; rank 0 has the
    checkpoints, and writes all that counts. What the others log in their `directory` is theirs.

    A step whose loss or gradient is not finite is skipped and counted. Raises BadInput for unusable rows, keys, targets
    or checkpoints; WorkFailed when too many steps in a row are skipped, or a weight is not finite: the last checkpoint
    is kept. RankLost when another rank is lost.
    """
    directory = Path(directory)
    fitted = fit_rows(rows, settings.max_length, settings.too_long)
    checkpoint, warnings = load_latest(directory / "checkpoints", identity)
    training = _Training(model, fitted.rows, settings, target_policy, teacher, beginning, ranks or Ranks())
    if checkpoint:
        prune(directory / "checkpoints", checkpoint.step)
        training.resume(checkpoint)
    training.share()
    first_step, pace = training.done, Pace()

    model.train()
    log = _open_log(directory / LOG, checkpoint.log_bytes if checkpoint else 0)
    with log, recomputed_layers(model, settings.gradient_checkpointing):
        if training.best and not checkpoint:
            _write_entry(log, training.measure_base())
        while not training.is_over:
            entry = training.step()
            _write_entry(log, entry)
            together = training.done % settings.checkpoint_every_steps == 0 or training.is_over
            # By the clock rank 0 saves alone, which changes nothing in it: no rank needs to know, and what a training
            # comes to does not depend on the time that it took.
            if training.ranks.rank == 0 and (together or pace.is_due):
                with pace.saving():
                    os.fsync(log.fileno())  # before the checkpoint that counts on it
                    save(directory / "checkpoints", training.checkpoint(log.tell()), identity)
            if together:
                training.share()  # chips of other kinds round otherwise: here they come together again
            if on_progress:
                on_progress(total_steps=training.total_steps, **entry)

    model.eval()
    training.take_best()
    if training.ranks.rank == 0:
        training.method.write(model, settings, directory / "adapter")
    entries = [json.loads(line) for line in (directory / LOG).read_bytes().splitlines()]
    steps = [entry for entry in entries if entry["step"] > 0]
    trained = [entry for entry in steps if "loss" in entry]
    return TrainResult(
        adapter=directory / "adapter",
        steps=len(steps),
        loss=trained[-1]["loss"] if trained else None,
        completion_tokens=sum(entry["completion_tokens"] for entry in trained),
        trainable_parameters=sum(array.size for array in lora.adapter_weights(model).values()),
        packed=training.packed,
        rows=fitted,
        skipped_steps=len(steps) - len(trained),
        best=training.best,
        resumed_from=first_step,
        warnings=tuple(warnings),
    )


class _Training:
    """A training in memory: the student, its optimizer, and where it stands. `done` counts optimizer steps."""

    def __init__(
        self,
        model: nn.Module,
        rows: Sequence[Any],
        settings: Any,
        target_policy: Policy | None,
        teacher: Path | None,
        beginning: Path | None,
        ranks: Ranks,
    ):
        self.ranks = ranks
        self.model, self.settings, self.method = model, settings, METHODS[settings.method]
        self.method.attach(model, settings)
        self._head, self.packed = output_head(model), can_pack(model)
        self._teacher = self._drew_the_rows(teacher)
        self._soft = self._soft_targets(target_policy)
        self._validation, self.best = None, None
        if settings.validation:
            rows, held_out = hold_out(rows, settings.validation.percent)
            batches = list(micro_batches(held_out, settings.row_tokens, self.packed))
            terms = None
            if not self._soft and target_policy and self.method is lora:  # full would have to hold its base for them
                terms = Soft(self._teacher(), target_policy)
            self._validation, self.best = Validation(batches, settings.validation, self._soft, terms), Best()
        if beginning:  # now that a base of every weight has been taken
            model.load_weights(list(read_weights(model, beginning).items()), strict=False)
        self._plan = BatchPlan(
            rows,
            rows_per_step=settings.rows_per_step,
            row_tokens=settings.row_tokens,
            packed=self.packed,
            seed=settings.seed,
        )
        self.total_steps = settings.steps or settings.epochs * self._plan.steps_per_epoch
        self.done = self._skipped_in_a_row = 0
        self._optimizer = AdamW(
            learning_rate=settings.learning_rate,
            betas=list(settings.betas),
            weight_decay=settings.weight_decay,
            # Off by default in MLX, always on in PyTorch and Megatron. Without it the first update is 0.45 of a
            # full one at betas (0.9, 0.95): a second warm-up that no recipe asked for.
            bias_correction=True,
        )
        self._optimizer.init(model.trainable_parameters())

    @property
    def is_over(self) -> bool:
        over = self.done == self.total_steps or bool(self._validation and self._validation.is_over(self.best))
        return bool(self.ranks.from_first({"over": mx.array(over)})["over"].item()) if self._validation else over

    def share(self) -> None:
        """Every rank takes up where rank 0 is."""
        if self.ranks.size == 1:
            return
        optimizer = dict(tree_flatten(self._optimizer.state))
        counts = {"done": mx.array(self.done), "skipped": mx.array(self._skipped_in_a_row)}
        first = self.ranks.from_first(lora.adapter_weights(self.model))
        self.model.load_weights(list(first.items()), strict=False)
        self._optimizer.state = tree_unflatten(list(self.ranks.from_first(optimizer).items()))
        counts = self.ranks.from_first(counts)
        self.done, self._skipped_in_a_row = counts["done"].item(), counts["skipped"].item()

    def resume(self, checkpoint: Checkpoint) -> None:
        self.model.load_weights(list(checkpoint.adapter.items()), strict=False)
        self._optimizer.state = tree_unflatten(list(checkpoint.optimizer.items()))
        self.done, self.best = checkpoint.step, checkpoint.best
        self._skipped_in_a_row = checkpoint.skipped_in_a_row

    def checkpoint(self, log_bytes: int) -> Checkpoint:
        """Raises WorkFailed for a weight that is not finite."""
        weights = lora.adapter_weights(self.model)
        if not all(mx.isfinite(array).all().item() for array in weights.values()):
            raise self._not_finite("a trained weight is")
        state = dict(tree_flatten(self._optimizer.state))
        return Checkpoint(self.done, log_bytes, weights, state, self.best, self._skipped_in_a_row)

    def measure_base(self) -> dict[str, Any]:
        """A line of the log for the student before its first step: what it is to gain on."""
        return {"step": 0, "validation": self._validate()}

    def step(self) -> dict[str, Any]:
        """One optimizer step and, where it is due, a validation. Returns its line of the log.

        Raises WorkFailed where the loss or the gradient was not finite in too many steps in a row.
        """
        settings, number = self.settings, self.done
        # Dropout masks are a function of step and rank.
        mx.random.seed(((settings.seed << 32) + (self.ranks.rank << 28) + number) % 2**64)
        batches, tokens = self._plan.part(*divmod(number, self._plan.steps_per_epoch), self.ranks)
        # Not under mx.compile: nearly every micro-batch has a shape of its own, and would compile anew.
        loss, gradient = step_gradient(self.model, self._head, batches, self._soft, tokens)
        if self.ranks.size > 1:
            loss, gradient = self._summed(loss, gradient)
        gradient, norm = clip_grad_norm(tree_unflatten(list(gradient.items())), settings.clip_norm)
        rate = learning_rate(
            number,
            self.total_steps,
            peak=settings.learning_rate,
            warmup_fraction=settings.warmup_fraction,
            final_fraction=settings.final_fraction,
        )
        self.done += 1
        entry: dict[str, Any] = {"step": self.done, "learning_rate": rate, "completion_tokens": loss.tokens}
        if math.isfinite(loss.total) and math.isfinite(norm.item()):
            self._skipped_in_a_row = 0
            self._optimizer.learning_rate = rate
            self._optimizer.update(self.model, gradient)
            mx.eval(self.model.trainable_parameters(), self._optimizer.state)
            entry |= {"loss": loss.total, **loss.terms, "gradient_norm": norm.item()}
        else:
            self._skipped_in_a_row += 1
            entry["skipped"] = "gradient" if math.isfinite(loss.total) else "loss"
            if self._skipped_in_a_row > MOST_SKIPPED:
                raise self._not_finite(f"the {entry['skipped']} of {self._skipped_in_a_row} steps in a row was")
        if self._validation and self._validation.is_due(self.done, self.total_steps):
            entry["validation"] = self._validate()
        return entry

    def _summed(self, loss: Loss, gradient: dict[str, mx.array]) -> tuple[Loss, dict[str, mx.array]]:
        parts = {"total": mx.array(loss.total), "kept": mx.array(loss.kept_mass or 0.0)}
        summed = self.ranks.sum(gradient | {f"loss {name}": part for name, part in parts.items()})
        total, kept = (summed.pop(f"loss {name}").item() for name in parts)
        return Loss(total, None if loss.kept_mass is None else kept, loss.tokens), summed

    def take_best(self) -> None:
        """Where there is validation, make the best student the one that is written."""
        if self.best:
            self.model.load_weights(list(self.best.weights.items()), strict=False)

    def _drew_the_rows(self, folder: Path | None) -> Callable[[], Base]:
        """What makes the model whose distribution the rows came from."""
        if folder is None:
            return lambda: self.method.base_of(self.model, self._head)
        weights = read_weights(self.model, folder)
        return lambda: wearing(self.model, self._head, weights)

    def _soft_targets(self, policy: Policy | None) -> Soft | None:
        targets = self.settings.targets
        if targets not in ("tokens", "distribution"):
            raise BadInput(f"train.targets is {targets!r}: give tokens or distribution")
        if targets == "tokens":
            return None
        if policy is None:
            raise BadInput("train.targets is distribution: give target_policy, the policy that sampled the rows")
        return Soft(self._teacher(), policy)

    def _validate(self) -> dict[str, float]:
        measured = self._validation.measure(self.model, self._head)
        self.best.see(self.done, measured.get("loss"), lora.adapter_weights(self.model))
        return measured

    def _not_finite(self, what: str) -> WorkFailed:
        return WorkFailed(
            f"training stopped at step {self.done} of {self.total_steps}: {what} not finite. The last checkpoint is "
            f"kept. If the base answers sensibly, try a train.learning_rate below {self.settings.learning_rate:g}; if "
            "not, its weights are damaged"
        )


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
