"""Scales and biases of quantized layers tuned together, so that the whole model says what the student says.

They are numbers of 16 or 32 bits in the file as it is, a sixteenth of the weights in number at a group size of 64 and
two to a group, so they can carry an update that is far below a step of the integers. The loss is KL(student || export)
at completion positions; the integers stand. (mlx-lm's DWQ tunes the same numbers of a model that is rounded anew.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import Adam
from mlx.utils import tree_unflatten

from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.export.quantizer.grid import Grid, pack
from mlx_ssd.training.batches import Batch, BatchPlan
from mlx_ssd.training.documents import can_pack
from mlx_ssd.training.forward import completion_states, output_head
from mlx_ssd.training.loss import Soft, step_gradient
from mlx_ssd.training.recompute import recomputed_layers
from mlx_ssd.training.schedule import learning_rate

STEPS = 48
ROWS_PER_STEP = 8
ROW_TOKENS = 1024
PEAK = 0.1  # of the mean size of the update, in steps of the grid: so far a weight moves in one optimizer step
MOST = 0.01  # steps of the grid
WHOLE = DecodingPolicy(temperature=1.0)  # every token, as the student has it


class Tuned(nn.Module):
    """A quantized linear layer whose scales and biases are trained: as float32 numbers in steps of the grid, but
    rounded as they will be stored, straight through for the gradient.

    A group's scale is changed about the middle of its integers, and by their standard deviation, so that a step of
    either number moves the group's weights by a step (root mean square), and neither undoes the other: Adam moves all
    numbers alike, and a scale as stored would move weights of 4 bits eight times as far as a bias.
    """

    def __init__(self, grid: Grid, bias: mx.array | None):
        super().__init__()
        self.scale_steps = mx.zeros(grid.scales.shape)
        self.bias_steps = mx.zeros(grid.scales.shape)
        self._grid, self._bias = grid, bias
        integers = grid.integers.reshape(*grid.scales.shape, -1).astype(np.float32)
        self._middle = mx.array(integers.mean(axis=-1))
        self._spread = mx.array(np.maximum(integers.std(axis=-1), 1))  # 0 where a group has one integer
        self._integers = pack(grid.integers, grid.bits)
        self._scales, self._biases = mx.array(grid.scales), mx.array(grid.biases)

    def _numbers(self) -> tuple[mx.array, mx.array]:
        moved = self._scales * self.scale_steps / self._spread
        scales = self._scales + moved
        biases = self._biases - moved * self._middle + mx.abs(self._scales) * self.bias_steps
        return _rounded(scales, self._grid.dtype), _rounded(biases, self._grid.dtype)

    def __call__(self, x: mx.array) -> mx.array:
        scales, biases = self._numbers()
        weight = mx.dequantize(self._integers, scales, biases, self._grid.group_size, self._grid.bits)
        y = x @ weight.T
        return y if self._bias is None else y + self._bias

    def tuned(self) -> Grid:
        scales, biases = (np.array(array) for array in self._numbers())
        grid = self._grid
        return Grid(grid.integers, scales, biases, grid.bits, grid.group_size, grid.dtype)


def _rounded(array: mx.array, dtype: mx.Dtype) -> mx.array:
    return array + mx.stop_gradient(array.astype(dtype).astype(mx.float32) - array)


def distil(
    model: nn.Module,
    student: nn.Module,
    grids: dict[str, Grid],
    rows: Sequence[Any],
    size: float,
    report: Callable[[int, int], None],
) -> dict[str, Grid]:
    """The grids, their scales and biases tuned. `model` is the base in float32, `student` the same with its adapter;
    `size` is the root mean square of the update in steps. Changes `model`."""
    modules = dict(model.named_modules())
    layers = {path: Tuned(grid, modules[path].get("bias")) for path, grid in grids.items()}
    model.freeze()
    model.update_modules(tree_unflatten(list(layers.items())))
    head = output_head(student)
    of_student = head.of(student) if head else _identity

    def target(batch: Batch) -> tuple[mx.array, Callable[[mx.array], mx.array]]:
        return completion_states(student, head, batch), of_student

    plan = BatchPlan(rows, rows_per_step=ROWS_PER_STEP, row_tokens=ROW_TOKENS, packed=can_pack(model), seed=0)
    peak = min(PEAK * size, MOST)
    optimizer = Adam(learning_rate=peak, betas=[0.9, 0.95], bias_correction=True)
    with recomputed_layers(model):
        for step in range(STEPS):
            report(step, STEPS)
            batches = plan.batches(*divmod(step, plan.steps_per_epoch))
            _, gradient = step_gradient(model, head, batches, Soft(target, WHOLE))
            optimizer.learning_rate = learning_rate(step, STEPS, peak=peak, warmup_fraction=0.05, final_fraction=0.02)
            optimizer.update(model, tree_unflatten(list(gradient.items())))
            mx.eval(model.trainable_parameters(), optimizer.state)
    return {path: layer.tuned() for path, layer in layers.items()}


def _identity(states: mx.array) -> mx.array:
    return states
