"""Gradient checkpointing: of each layer only the input is kept, the rest is computed again in the backward pass.

(mlx-lm's `grad_checkpoint` replaces the layer's class for the rest of the process, and where there is dropout it
recomputes with other masks than those of the forward pass.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn


@contextlib.contextmanager
def recomputed_layers(model: nn.Module, on: bool = True) -> Iterator[None]:
    """Within it, the model's layers recompute their activations."""
    kinds = {type(layer): type(layer).__call__ for layer in model.layers} if on else {}
    for kind, call in kinds.items():
        kind.__call__ = _recomputed(call)
    try:
        yield
    finally:
        for kind, call in kinds.items():
            kind.__call__ = call


def _recomputed(call: Callable[..., Any]) -> Callable[..., Any]:
    def recomputed(layer: nn.Module, *arguments: Any, **named: Any) -> Any:
        key, again = _random_key(), False

        def with_parameters(parameters: Any, *arguments: Any, **named: Any) -> Any:
            nonlocal again
            layer.update(parameters)
            after = _random_key()
            mx.random.state[0][...] = key  # the dropout masks of the first time
            result = call(layer, *arguments, **named)
            if again:
                mx.random.state[0][...] = after
            again = True
            return result

        # Parameters as arguments: checkpoint gives no gradient to what a function merely closes over.
        return mx.checkpoint(with_parameters)(layer.trainable_parameters(), *arguments, **named)

    return recomputed


def _random_key() -> mx.array:
    return mx.random.state[0] + 0  # a copy: the state is one array that is written over
