"""The training loop: rows in, a LoRA adapter out, the same bits whether or not it was interrupted.

Written under the directory that is given:

    train_log.jsonl   one line an optimizer step; no times, so that a resumed log is the same log
    checkpoints/      the last two (checkpoint.py)
    adapter/          written once, at the end (lora.py)
"""

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import AdamW, clip_grad_norm
from mlx.utils import tree_flatten, tree_unflatten

from mlx_ssd.decoding.draw import Policy
from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.training.batches import BatchPlan
from mlx_ssd.training.checkpoint import Checkpoint, load_latest, prune, save
from mlx_ssd.training.forward import output_head
from mlx_ssd.training.lora import adapter_weights, attach_lora, write_adapter
from mlx_ssd.training.loss import step_gradient
from mlx_ssd.training.schedule import learning_rate

LOG = "train_log.jsonl"


@dataclass(frozen=True)
class TrainResult:
    adapter: Path  # the folder to hand to mlx_lm.load as adapter_path
    steps: int
    loss: float  # of the last step, nats a completion token
    completion_tokens: int  # trained on, over all epochs
    trainable_parameters: int
    resumed_from: int  # the step at which this call took up the training; 0 if at the start
    warnings: tuple[str, ...]


def train(
    model: nn.Module,
    rows: Sequence[Any],
    settings: Any,
    directory: str | Path,
    fingerprint: str,
    on_progress: Callable[..., None] | None = None,
    target_policy: Policy | None = None,
) -> TrainResult:
    """Train a LoRA adapter for `model` on `rows`, or go on where an earlier call with `directory` stopped.

    `model` is a bare mlx-lm model; it comes back in evaluation mode with the trained adapter attached. `rows`
    are described in batches.py. `settings` has targets, rank, scale, dropout, keys, num_layers, seed (lora.py),
    learning_rate, warmup_fraction, final_fraction (schedule.py), betas, weight_decay, clip_norm (global),
    epochs, rows_per_step, rows_per_micro_batch, max_length (batches.py) and checkpoint_every_steps.
    The targets are 'tokens', the sampled ones, or 'distribution', the one that they were drawn from (targets.py):
    that takes `target_policy`, the policy that sampled the rows.
    `fingerprint` must change with anything that changes the result: settings, rows, model, policy.
    `on_progress` is called after each step with step (from 1), total_steps, loss, completion_tokens,
    learning_rate and gradient_norm (before clipping).

    Raises BadInput for unusable rows, keys, targets or checkpoints; WorkFailed when a number is not finite, before the
    update is made: all files stay as they were after the step before.
    """
    directory = Path(directory)
    if settings.targets not in ("tokens", "distribution"):
        raise BadInput(f"train.targets is {settings.targets!r}: give tokens or distribution")
    if settings.targets == "tokens":
        target_policy = None
    elif target_policy is None:
        raise BadInput("train.targets is distribution: give target_policy, the policy that sampled the rows")
    plan = BatchPlan(
        rows,
        rows_per_step=settings.rows_per_step,
        rows_per_micro_batch=settings.rows_per_micro_batch,
        max_length=settings.max_length,
        seed=settings.seed,
    )
    total_steps = settings.epochs * plan.steps_per_epoch
    checkpoint, warnings = load_latest(directory / "checkpoints", fingerprint)
    first_step = checkpoint.step if checkpoint else 0

    attach_lora(model, settings)
    head = output_head(model)
    optimizer = AdamW(
        learning_rate=settings.learning_rate,
        betas=list(settings.betas),
        weight_decay=settings.weight_decay,
        # Off by default in MLX, always on in PyTorch and Megatron. Without it the first update is 0.45 of a
        # full one at betas (0.9, 0.95): a second warm-up that no recipe asked for.
        bias_correction=True,
    )
    optimizer.init(model.trainable_parameters())
    if checkpoint:
        prune(directory / "checkpoints", checkpoint.step)
        model.load_weights(list(checkpoint.adapter.items()), strict=False)
        optimizer.state = tree_unflatten(list(checkpoint.optimizer.items()))

    model.train()
    with _open_log(directory / LOG, checkpoint.log_bytes if checkpoint else 0) as log:
        for step in range(first_step, total_steps):
            optimizer.learning_rate = rate = learning_rate(
                step,
                total_steps,
                peak=settings.learning_rate,
                warmup_fraction=settings.warmup_fraction,
                final_fraction=settings.final_fraction,
            )
            mx.random.seed(((settings.seed << 32) + step) % 2**64)  # dropout masks are a function of the step
            # Not under mx.compile: nearly every micro-batch has a shape of its own, and would compile anew.
            batches = plan.batches(*divmod(step, plan.steps_per_epoch))
            loss, gradient, tokens = step_gradient(model, head, batches, target_policy)
            gradient, norm = clip_grad_norm(gradient, settings.clip_norm)
            done = step + 1
            entry = {
                "step": done,
                "loss": loss,
                "learning_rate": rate,
                "gradient_norm": norm.item(),
                "completion_tokens": tokens,
            }
            if not (math.isfinite(loss) and math.isfinite(entry["gradient_norm"])):
                raise _not_finite(f"loss {loss}, gradient norm {norm.item()}", done, total_steps, settings)
            optimizer.update(model, gradient)
            mx.eval(model.trainable_parameters(), optimizer.state)
            log.write(json.dumps(entry).encode() + b"\n")

            if done % settings.checkpoint_every_steps == 0 or done == total_steps:
                weights = adapter_weights(model)
                if not all(mx.isfinite(array).all().item() for array in weights.values()):
                    raise _not_finite("an adapter weight", done, total_steps, settings)
                os.fsync(log.fileno())  # before the checkpoint that counts on it
                state = dict(tree_flatten(optimizer.state))
                save(directory / "checkpoints", Checkpoint(done, log.tell(), weights, state), fingerprint)
            if on_progress:
                on_progress(total_steps=total_steps, **entry)

    model.eval()
    write_adapter(model, settings, directory / "adapter")
    entries = [json.loads(line) for line in (directory / LOG).read_bytes().splitlines()]
    return TrainResult(
        adapter=directory / "adapter",
        steps=total_steps,
        loss=entries[-1]["loss"],
        completion_tokens=sum(entry["completion_tokens"] for entry in entries),
        trainable_parameters=sum(array.size for array in adapter_weights(model).values()),
        resumed_from=first_step,
        warnings=tuple(warnings),
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


def _not_finite(what: str, step: int, total_steps: int, settings: Any) -> WorkFailed:
    return WorkFailed(
        f"training stopped at step {step} of {total_steps}: a number is not finite ({what}); the files are "
        f"as before it, and a learning_rate below {settings.learning_rate:g} is worth a try"
    )
