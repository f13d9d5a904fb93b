"""Full fine-tuning, as in the paper: every weight, or every weight of the last layers, is trained.

What is trained is held in float32, whatever the base's type: at a learning rate of 5e-6 an update is far below half a
bfloat16 step of the weight, and would be rounded away. It is written in the base's own type, in mlx-lm's layout.
`settings` is anything with `num_layers` (the last so many, their weights alone; -1 for all, embeddings included).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map

from mlx_ssd.errors import BadInput
from mlx_ssd.training.forward import Head
from mlx_ssd.training.lora import write_folder
from mlx_ssd.training.targets import Base
from mlx_ssd.training.teacher import wearing


def attach(model: nn.Module, settings: Any) -> None:
    """Make the weights trainable. Raises BadInput for a quantized base: its weights are integers."""
    if any(hasattr(module, "bits") for module in model.modules()):
        raise BadInput("train.method full needs weights that are not quantized: take a 16-bit model, or method lora")
    model.freeze()
    for part in [model] if settings.num_layers < 0 else model.layers[-settings.num_layers :]:
        part.unfreeze()
    model.base_dtype = str(_dtype(model)).rpartition(".")[2]
    model.update(tree_map(lambda array: array.astype(mx.float32), model.trainable_parameters()))


def base_of(model: nn.Module, head: Head | None) -> Base:
    """The model as it is now, before training."""
    return wearing(model, head, dict(tree_flatten(model.trainable_parameters())))


def write(model: nn.Module, settings: Any, folder: Path) -> None:
    """Write the folder that `mlx_lm.load(base, adapter_path=folder)` reads, whole or not at all."""
    dtype = getattr(mx, model.base_dtype)
    arrays = {name: array.astype(dtype) for name, array in tree_flatten(model.trainable_parameters())}
    write_folder(folder, {"fine_tune_type": "full", "num_layers": settings.num_layers}, arrays)


def _dtype(model: nn.Module) -> mx.Dtype:
    return next(array.dtype for _, array in tree_flatten(model.parameters()) if mx.issubdtype(array.dtype, mx.floating))
