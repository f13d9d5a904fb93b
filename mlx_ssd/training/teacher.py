"""A model as it would be with other values of what is trained: the base of a full fine-tuning, the student of the round
before. Both share every other weight with the student in training, so a second model is not loaded."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_ssd.errors import BadInput
from mlx_ssd.training.batches import Batch
from mlx_ssd.training.forward import Head, completion_states
from mlx_ssd.training.modes import without_dropout
from mlx_ssd.training.targets import Base


def wearing(model: nn.Module, head: Head | None, weights: Mapping[str, mx.array]) -> Base:
    """What `model` gives with these values of all its trainable arrays, without dropout."""
    worn_head = None
    if head:
        with _with(model, weights):
            worn_head = copy.copy(head.module(model))  # its arrays are this moment's

    def base(batch: Batch) -> tuple[mx.array, Any]:
        with _with(model, weights), without_dropout(model):
            states = completion_states(model, head, batch)
        if head is None:
            return states, lambda states: states
        return states, worn_head.as_linear if head.tied else worn_head

    return base


def read_weights(model: nn.Module, folder: Path) -> dict[str, mx.array]:
    """The trained arrays of an adapter's folder, in the types in which `model` holds them in training.

    Raises BadInput where it is not an adapter of the kind that `model` wears.
    """
    own = dict(tree_flatten(model.trainable_parameters()))
    found = mx.load(str(folder / "adapters.safetensors"))
    if {name: array.shape for name, array in found.items()} != {name: array.shape for name, array in own.items()}:
        raise BadInput(f"{folder} is no adapter of these train settings: rank, keys or layers are others")
    return {name: array.astype(own[name].dtype) for name, array in found.items()}


@contextmanager
def _with(model: nn.Module, weights: Mapping[str, mx.array]) -> Iterator[None]:
    trained = tree_flatten(model.trainable_parameters())
    try:
        model.load_weights(list(weights.items()), strict=False)
        yield
    finally:
        model.load_weights(trained, strict=False)
