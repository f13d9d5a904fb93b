"""The real training of ten steps beside autograd's: loss and gradient on both kinds of targets, the optimizer."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from mlx_ssd.decoding.draw import Policy
from mlx_ssd.parity.logits import LOGIT, tolerance_of
from mlx_ssd.parity.row import Row, differences, worst_relative
from mlx_ssd.parity.sides import free_mlx, in_mlx, in_torch
from mlx_ssd.parity.subject import Subject
from mlx_ssd.records import TrainingRow
from mlx_ssd.training.rows import TokenRow, epoch_order

STEPS, ROWS_PER_STEP = 10, 2
GRADIENT_ROWS, STRANGE_TOKENS = 4, 32
MOVE = 0.01  # the spread of a random B
LOSS, GRADIENT, OPTIMIZER, TRAJECTORY = 1e-4, 1e-4, 1e-5, 0.02
OF_LOSS = "no more than a logit may be off"
OF_GRADIENT = "float32 through all layers and back"
OF_SOFT_GRADIENT = "student and target: each probability is relatively as far off as its logit, which may be {}"
OF_OPTIMIZER = "float32 in a dozen operations a step, the gradients being the same"
OF_TRAJECTORY = "AdamW divides a gradient by its size, so that rounding of small ones counts in full"
Arrays = dict[str, np.ndarray]


def left_out(subject: Subject) -> str | None:
    if subject.by_layer:
        return "a model that is run layer by layer is not trained"
    if not subject.lora:
        return "it compares the training of adapters, and this student was trained in full"
    return None if subject.rows else "the run has no training rows"


def rows(subject: Subject, work: Path) -> list[Row]:
    settings = _settings(subject)
    found = _in_mlx(subject, settings, work)
    free_mlx()
    return [*_gradients(subject, settings, found), *_optimizer(settings, found), *_trajectory(subject, settings, found)]


@dataclass(frozen=True)
class Gradient:
    loss: float
    kept_mass: float | None
    arrays: Arrays


@dataclass(frozen=True)
class Training:
    """What MLX computed."""

    after: dict[int, Arrays]  # the adapter after so many steps; after none B is zero
    steps: list[Arrays]  # the gradient of each
    log: list[dict[str, Any]]
    moved: Arrays  # an adapter whose B is random
    gradients: dict[str, Gradient]  # there, by kind of targets


def _targets(subject: Subject) -> dict[str, Policy | None]:
    return {"tokens": None, "distribution": subject.sampling}


def _gradients(subject: Subject, settings: Any, found: Training) -> list[Row]:
    """Of what no student would write, with a random B: near its targets a gradient is a small difference of large
    numbers, and what rounding leaves of it tells little."""
    from mlx_ssd.torch_ref.loss import step_gradient

    chosen = _strange(subject)
    model, adapter = _twin(subject, settings, found.moved)
    note = f"{len(chosen)} rows, {sum(len(row.completion_ids) for row in chosen)} completion tokens"
    found_rows = []
    for name, policy in _targets(subject).items():
        of_mlx = found.gradients[name]
        loss, gradient = step_gradient(model, adapter, chosen, policy)
        pairs = [([of_mlx.loss, of_mlx.kept_mass or 0.0], [loss.total, loss.kept_mass or 0.0])]
        found_rows.append(Row(f"loss, {name}", differences(pairs), "max_abs", LOSS, OF_LOSS, note))
        pairs = [(of_mlx.arrays[tensor], gradient[tensor].numpy()) for tensor in gradient]
        figures = differences(pairs) | {"relative": worst_relative(pairs)}
        tolerance, why = _of_gradient(model, adapter, chosen) if policy else (GRADIENT, OF_GRADIENT)
        found_rows.append(Row(f"LoRA gradient, {name}", figures, "relative", tolerance, why, note))
    return found_rows


def _of_gradient(model: Any, adapter: Any, rows: Sequence[TokenRow]) -> tuple[float, str]:
    """The tolerance on soft targets: two distributions are subtracted, where of a token one is exact. It counts beside
    what comes of the layers only where logits are so large that float32 holds them less exactly."""
    import torch

    from mlx_ssd.torch_ref.model import completion_logits

    with torch.no_grad(), adapter.off():
        logits = [completion_logits(model, row.prompt_ids, row.completion_ids).float().numpy() for row in rows]
    of_logit, _ = tolerance_of(logits)
    if of_logit <= LOGIT:
        return GRADIENT, OF_GRADIENT
    return 2 * of_logit, OF_SOFT_GRADIENT.format(f"{of_logit:.1e}")


def _optimizer(settings: Any, found: Training) -> list[Row]:
    """PyTorch's on MLX's gradients. B begins at zero: after one step it is the update itself."""
    import torch

    from mlx_ssd.torch_ref.optimizer import Optimizer

    weights = {name: torch.tensor(array).requires_grad_() for name, array in found.after[0].items()}
    optimizer, found_rows = Optimizer(weights, settings, STEPS), []
    for step, gradient in enumerate(found.steps, start=1):
        optimizer.step({name: torch.tensor(array) for name, array in gradient.items()})
        if step in found.after:
            pairs = [(found.after[step][name], tensor.detach().numpy()) for name, tensor in weights.items()]
            figures = differences(pairs) | {"relative": worst_relative(pairs)}
            steps = "one step" if step == 1 else f"{step} steps"
            note = "of the same gradients"
            found_rows.append(Row(f"weights after {steps}", figures, "relative", OPTIMIZER, OF_OPTIMIZER, note))
    return found_rows


def _trajectory(subject: Subject, settings: Any, found: Training) -> list[Row]:
    from mlx_ssd.torch_ref.loss import step_gradient
    from mlx_ssd.torch_ref.optimizer import Optimizer

    model, adapter = _twin(subject, settings, found.after[0])
    optimizer = Optimizer(adapter.tensors, settings, STEPS)
    policy = _targets(subject)[settings.targets]
    losses = []
    for step in range(STEPS):
        loss, gradient = step_gradient(model, adapter, _of_step(subject, settings.seed, step), policy)
        losses.append(loss.total)
        optimizer.step(gradient)
    note = f"{STEPS} steps of {ROWS_PER_STEP} rows, targets: {settings.targets}, no dropout"
    pairs = [([entry.get("loss", np.nan) for entry in found.log], losses)]
    of_loss = Row("trajectory, losses", differences(pairs), "max_abs", LOSS, OF_LOSS, note)
    pairs = [(found.after[STEPS][name], tensor.detach().numpy()) for name, tensor in adapter.tensors.items()]
    figures = differences(pairs) | {"relative": worst_relative(pairs, by_norm=True)}
    return [of_loss, Row("trajectory, weights", figures, "relative", TRAJECTORY, OF_TRAJECTORY, note)]


def _of_step(subject: Subject, seed: int, step: int) -> list[TrainingRow]:
    """An epoch's last step takes what is left of the rows."""
    epoch, number = divmod(step, math.ceil(len(subject.rows) / ROWS_PER_STEP))
    return epoch_order(subject.rows, seed, epoch)[number * ROWS_PER_STEP :][:ROWS_PER_STEP]


def _twin(subject: Subject, settings: Any, weights: Arrays) -> tuple[Any, Any]:
    import torch

    from mlx_ssd.torch_ref.adapter import Adapter

    model, _ = in_torch(subject, adapted=False)
    return model, Adapter(model, {name: torch.from_numpy(array) for name, array in weights.items()}, settings.scale)


def _settings(subject: Subject) -> SimpleNamespace:
    """The run's own, for ten small steps that can be repeated."""
    recipe = subject.source.recipe
    longest = max(len(row.prompt_ids) + len(row.completion_ids) for row in subject.rows)
    chosen = recipe.train.model_dump() | {"seed": recipe.seed, "steps": STEPS, "rows_per_step": ROWS_PER_STEP}
    chosen |= {"row_tokens": longest * ROWS_PER_STEP, "max_length": longest, "gradient_checkpointing": False}
    chosen |= {"dropout": 0.0, "validation": None, "checkpoint_every_steps": STEPS}
    return SimpleNamespace(**chosen)


def _in_mlx(subject: Subject, settings: Any, work: Path) -> Training:
    """The training itself, and gradients by the functions that it calls."""
    import mlx.core as mx

    from mlx_ssd.training import lora
    from mlx_ssd.training.batches import BatchPlan, micro_batches
    from mlx_ssd.training.documents import can_pack
    from mlx_ssd.training.loop import LOG, train

    model, _ = in_mlx(subject, adapted=False)
    lora.attach(model, settings)
    packed, targets = can_pack(model), _targets(subject)
    cut = {"rows_per_step": ROWS_PER_STEP, "row_tokens": settings.row_tokens, "seed": settings.seed}
    plan = BatchPlan(subject.rows, packed=packed, **cut)

    def of_step(model: Any, step: int) -> Arrays:
        batches = plan.batches(*divmod(step, plan.steps_per_epoch))
        return _gradient(model, batches, targets[settings.targets]).arrays

    after, steps = {0: _adapter(model)}, [of_step(model, 0)]
    moved = _moved(after[0])
    model.load_weights([(name, mx.array(array)) for name, array in moved.items()], strict=False)
    chosen = list(micro_batches(_strange(subject), settings.row_tokens, packed))
    gradients = {name: _gradient(model, chosen, policy) for name, policy in targets.items()}
    model = None  # training attaches its adapter itself
    trained, _ = in_mlx(subject, adapted=False)

    def follow(step: int, **_: Any) -> None:
        if step in (1, STEPS):
            after[step] = _adapter(trained)
        if step < STEPS:
            steps.append(of_step(trained, step))

    train(trained, subject.rows, settings, work / "training", {}, follow, subject.sampling)
    log = [json.loads(line) for line in (work / "training" / LOG).read_text(encoding="utf-8").splitlines()]
    return Training(after, steps, log, moved, gradients)


def _gradient(model: Any, batches: Sequence[Any], policy: Policy | None) -> Gradient:
    from mlx_ssd.training.forward import output_head
    from mlx_ssd.training.lora import base_of
    from mlx_ssd.training.loss import Soft, step_gradient

    head = output_head(model)
    loss, gradient = step_gradient(model, head, batches, Soft(base_of(model, head), policy) if policy else None)
    return Gradient(loss.total, loss.kept_mass, {name: np.array(array) for name, array in gradient.items()})


def _strange(subject: Subject) -> list[TokenRow]:
    """Prompts, each answered by the beginning of the next."""
    prompts = [row.prompt_ids for row in subject.rows[:GRADIENT_ROWS]]
    return [TokenRow(str(i), 0, prompt, prompts[i - 1][:STRANGE_TOKENS]) for i, prompt in enumerate(prompts)]


def _moved(adapter: Arrays) -> Arrays:
    random = np.random.default_rng(0)
    return {
        name: array if name.endswith("lora_a") else (MOVE * random.standard_normal(array.shape)).astype(np.float32)
        for name, array in adapter.items()
    }


def _adapter(model: Any) -> Arrays:
    from mlx_ssd.training.lora import adapter_weights

    return {name: np.array(array) for name, array in adapter_weights(model).items()}
