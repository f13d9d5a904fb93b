"""The forward pass of training, and the backward pass from a gradient that is found only after it.

MLX builds the graph of a backward pass together with that of the forward pass, from the gradient of the output. Ours
(loss.py) needs the evaluated output first. To evaluate within `mx.grad` would keep every intermediate array alive, more
than twice what the backward pass needs, and recomputed layers too. So the graph is built on a gradient whose memory is
filled in later: `np.asarray` of an array is a writable view of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from mlx_ssd.training.batches import Batch
from mlx_ssd.training.documents import apart
from mlx_ssd.training.modes import without_dropout


@dataclass(frozen=True)
class Head:
    """The map from hidden states to logits, [..., H] -> [..., V].

    Where it is known, only completion positions go through it: vocabulary-wide logits of a prompt never exist.
    """

    path: str  # of the module within the model
    tied: bool  # to the embedding

    def of(self, model: nn.Module) -> Callable[[mx.array], mx.array]:
        """The head that the model has now: with an adapter switched off it may be another module."""
        module = self.module(model)
        return module.as_linear if self.tied else module

    def module(self, model: nn.Module) -> nn.Module:
        return model.lm_head if self.path == "lm_head" else model.model.embed_tokens


def output_head(model: nn.Module) -> Head | None:
    """The model's head; None where logits are not a plain map of hidden states (some families scale or cap them).

    It is tried against the whole model.
    """
    inner = getattr(model, "model", None)
    if "lm_head" in model:
        head = Head("lm_head", tied=False)
    elif hasattr(inner, "embed_tokens"):
        head = Head("model.embed_tokens", tied=True)
    else:
        return None
    if not callable(inner):
        return None
    probe = mx.arange(4)[None]
    with without_dropout(model):
        same = mx.array_equal(head.of(model)(inner(probe)), model(probe), equal_nan=True)
    return head if same.item() else None


def completion_states(model: nn.Module, head: Head | None, batch: Batch) -> mx.array:
    """What the head is applied to where a completion token is predicted, [N, H]; without a head the logits, [N, V]."""
    tokens, positions = mx.array(batch.tokens), mx.array(batch.positions)
    with apart(batch.documents):
        states = model(tokens) if head is None else model.model(tokens)
    return states.reshape(-1, states.shape[-1])[positions]


@dataclass(frozen=True)
class ForwardPass:
    """A forward pass that was computed, and the graph of its backward pass."""

    states: mx.array  # [N, H], evaluated
    _cotangent: mx.array  # of the same shape and dtype, to be filled in
    _gradient: dict[str, mx.array]  # not yet evaluated

    def gradient(self, of_states: mx.array) -> dict[str, mx.array]:
        """By trainable parameter: how a number changes whose gradient with respect to `states` is `of_states`.

        Not evaluated yet. Only once.
        """
        of_states = of_states.astype(self._cotangent.dtype)
        mx.eval(of_states)
        _memory(self._cotangent)[...] = _memory(of_states)
        return self._gradient


def forward_pass(model: nn.Module, head: Head | None, batch: Batch) -> ForwardPass:
    """Compute `completion_states`, ready for their gradient."""
    names, parameters = zip(*tree_flatten(model.trainable_parameters()), strict=True)
    found: list[mx.array] = []

    def product(*values: mx.array) -> list[mx.array]:
        """states . cotangent: its gradient is the backward pass from the cotangent. Never evaluated itself."""
        model.update(tree_unflatten(list(zip(names, values, strict=True))))
        states = completion_states(model, head, batch)
        cotangent = mx.array(np.zeros(states.shape, np.float32)).astype(states.dtype)
        mx.eval(cotangent)
        found.extend((states, cotangent))
        return [(states * cotangent).sum()]

    try:
        with apart(batch.documents):  # for layers that are recomputed, too: after `product` has returned
            _, gradient = mx.vjp(product, list(parameters), [mx.array(1.0)])
    finally:
        model.update(tree_unflatten(list(zip(names, parameters, strict=True))))  # not those of the graph
    states, cotangent = found
    mx.eval(states)
    return ForwardPass(states, cotangent, dict(zip(names, gradient, strict=True)))


def _memory(array: mx.array) -> np.ndarray:
    """The array's own memory, as numpy sees it."""
    return np.asarray(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array)
