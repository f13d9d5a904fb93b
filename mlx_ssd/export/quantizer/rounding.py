"""Integers of an updated weight on the base's own grid, chosen on what the layer is fed with: GPTQ (arXiv 2210.17323).

To the nearest, each weight is rounded for itself, and an update of a fraction of a step is rounded away. Here the
columns are rounded one after the other, and the error of each is made good by those that follow, so far as the layer's
inputs cannot tell them apart: what the layer puts out is kept, not each weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_unflatten

from mlx_ssd import heartbeat
from mlx_ssd.export.quantizer.grid import Grid
from mlx_ssd.training.batches import Batch
from mlx_ssd.training.forward import Head, completion_states

DAMPING = 0.01  # of the mean diagonal, as in the paper: directions that calibration never saw are not free
MOMENT_ROWS = 128  # as many texts as in the paper: a large model takes a pass over them for every few layers
MOMENT_BYTES = 2 * 2**30  # of second moments in memory at once; the others wait for a further pass over the texts


class _Recorder(nn.Module):
    """A module, and the sum of x x^T over its inputs [..., in]."""

    def __init__(self, module: nn.Module, width: int):
        super().__init__()
        self.module, self._sum = module, mx.zeros((width, width))

    def __call__(self, x: mx.array) -> mx.array:
        flat = x.reshape(-1, x.shape[-1]).astype(mx.float32)
        self._sum = self._sum + flat.T @ flat
        return self.module(x)


def second_moments(
    model: nn.Module, head: Head | None, widths: dict[str, int], batches: Sequence[Batch]
) -> Iterator[tuple[str, np.ndarray]]:
    """(path, X^T X float32 [in, in]) of each module that takes `widths[path]` numbers, over all positions."""
    for paths in _within(widths, MOMENT_BYTES):
        modules = dict(model.named_modules())
        recorders = {path: _Recorder(modules[path], widths[path]) for path in paths}
        model.update_modules(tree_unflatten(list(recorders.items())))
        try:
            for batch in batches:
                states = completion_states(model, head, batch)
                mx.eval(states, [recorder._sum for recorder in recorders.values()])
                heartbeat.alive()
        finally:
            model.update_modules(tree_unflatten([(path, modules[path]) for path in paths]))
        for path in paths:
            yield path, np.array(recorders.pop(path)._sum)


def _within(widths: dict[str, int], limit: int) -> Iterator[list[str]]:
    chosen: list[str] = []
    size = 0
    for path, width in widths.items():
        if chosen and size + 4 * width**2 > limit:
            yield chosen
            chosen, size = [], 0
        chosen.append(path)
        size += 4 * width**2
    yield chosen


def integers(target: np.ndarray, grid: Grid, moment: np.ndarray) -> np.ndarray:
    """uint8 [out, in] for which |X (W' - target)^T| is small; moment = X^T X.

    A row keeps the base's integers where these are as good: that is where no update is.
    """
    damped = moment.astype(np.float64)
    damped[np.diag_indices_from(damped)] += DAMPING * np.diag(damped).mean() + np.finfo(np.float32).tiny
    found = _by_columns(target, grid, _factor(damped))
    metric = damped.astype(np.float32)
    better = _errors(grid.weight(found) - target, metric) < _errors(grid.weight() - target, metric)
    return np.where(better[:, None], found, grid.integers)


def _factor(damped: np.ndarray) -> np.ndarray:
    """The upper Cholesky factor of the inverse: row i says how an error in column i is made good by the columns > i."""
    return np.linalg.cholesky(np.linalg.inv(damped)).T.astype(np.float32)


def _by_columns(target: np.ndarray, grid: Grid, factor: np.ndarray) -> np.ndarray:
    left = target.copy()
    found = np.empty(target.shape, np.uint8)
    for group, start in enumerate(range(0, target.shape[1], grid.group_size)):
        stop = start + grid.group_size
        scale, bias = grid.scales[:, group], grid.biases[:, group]
        divisor = np.where(scale == 0, 1, scale)
        errors = np.empty((len(target), grid.group_size), np.float32)
        for column in range(start, stop):
            chosen = np.clip(np.rint((left[:, column] - bias) / divisor), 0, grid.highest)
            error = (left[:, column] - (chosen * scale + bias)) / factor[column, column]
            left[:, column + 1 : stop] -= np.outer(error, factor[column, column + 1 : stop])
            found[:, column], errors[:, column - start] = chosen, error
        left[:, stop:] -= errors @ factor[start:stop, stop:]  # of a whole group at once
    return found


def _errors(difference: np.ndarray, metric: np.ndarray) -> np.ndarray:
    """[out]: the squared error of each output, over the calibration texts."""
    return ((difference @ metric) * difference).sum(axis=1)
