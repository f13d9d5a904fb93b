"""The update-preserving quantizer: a student in the bits of its quantized base, with what training changed still in it.

`mlx_lm fuse` adds the update to the weights and rounds to the nearest again. An update far below half a step is then
rounded away, and the integers are where they were. Here, on texts of the run:

1. rounding.py chooses the integers of every adapted layer on the base's own grid, so that the layer's output is kept;
2. distilling.py tunes the scales and biases of these layers together, towards the student with its adapter on.

The result has the base's bits, groups, types and sizes. What no adapter changed stays as it is, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_unflatten
from mlx_lm.utils import dequantize_model

from mlx_ssd import models
from mlx_ssd.errors import BadInput
from mlx_ssd.export.quantizer.distilling import ROW_TOKENS, distil
from mlx_ssd.export.quantizer.grid import Grid
from mlx_ssd.export.quantizer.rounding import MOMENT_ROWS, integers, second_moments
from mlx_ssd.models import ModelSource
from mlx_ssd.training.batches import micro_batches
from mlx_ssd.training.documents import can_pack
from mlx_ssd.training.forward import output_head
from mlx_ssd.weights import AdaptedWeights


def fit(
    base: ModelSource, adapter: Path, rows: Sequence[Any], report: Callable[[int, int], None]
) -> dict[str, dict[str, mx.array]]:
    """Module -> its weight, scales and biases as a file of mlx-lm has them, for every module that the adapter changes.

    `rows` are calibration texts: anything with `problem_id`, `sample_index`, `prompt_ids` and `completion_ids`. The
    same rows give the same result. report(done, total) counts modules and then optimizer steps.
    Raises BadInput for what has no update or no grid of integers: full fine-tuning, experts, embeddings, layers that
    are not quantized, float formats; and where there is no text.
    """
    weights = AdaptedWeights(base.path, adapter)
    student, _ = models.load(base, "float32", adapter)
    quantized = _checked(base, weights, student)
    if not rows:
        raise BadInput("there is no text to calibrate on; run `sample` first")
    _unpacked_on_cpu(student)
    head, packed = output_head(student), can_pack(student)
    batches = list(micro_batches(rows[:: math.ceil(len(rows) / MOMENT_ROWS)], ROW_TOKENS, packed))
    widths = {path: weights.shape(f"{path}.weight")[1] for path in quantized}
    grids, sizes = {}, []
    for path, moment in second_moments(student, head, widths, batches):
        report(len(grids), len(widths))
        grid = Grid.of(quantized[path], getattr(mx, weights.dtype(f"{path}.scales")))
        update = weights.delta(path)
        sizes.append(np.sqrt(np.square(update).mean() / np.square(grid.scales).mean()))
        chosen = integers(grid.weight() + update, grid, moment)
        grids[path] = Grid(chosen, grid.scales, grid.biases, grid.bits, grid.group_size, grid.dtype)
    model, _ = models.load(base, "float32")
    _unpacked_on_cpu(model)
    tuned = distil(model, student, grids, rows, float(np.mean(sizes)), report)
    return {path: grid.arrays() for path, grid in tuned.items()}


def _unpacked_on_cpu(model: nn.Module) -> None:
    """Put plain float32 weights in the place of quantized ones, the adapter within them: on a CPU products with packed
    integers are many times slower. On a GPU they stay packed, for their memory."""
    if mx.metal.is_available():
        return
    fused = [(path, module.fuse(dequantize=True)) for path, module in model.named_modules() if hasattr(module, "fuse")]
    model.update_modules(tree_unflatten(fused))
    dequantize_model(model)


def _checked(base: ModelSource, weights: AdaptedWeights, student: nn.Module) -> dict[str, nn.QuantizedLinear]:
    """The layers beneath the adapter, by path."""
    instead = "export it plainly rounded, or with --target adapter"
    if weights.method != "lora":
        raise BadInput(f"the student was trained in full, so no update stands beside its base: {instead}")
    modules = dict(student.named_modules())
    found = {path: modules[path].get("linear") for path in weights.adapted}
    for path, module in found.items():
        if not isinstance(module, nn.QuantizedLinear) or module.mode != "affine":
            raise BadInput(f"{path} of {base.path} is no linear layer with integers, scales and biases: {instead}")
    return found
