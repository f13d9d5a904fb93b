"""The forward pass of training: a batch in, what stands at its completion positions out."""

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

from mlx_ssd.training.batches import Batch

Head = Callable[[mx.array], mx.array]


def output_head(model: nn.Module) -> Head | None:
    """The map from hidden states to logits, [..., H] -> [..., V]; None where a model has no such map.

    Where it is known, prompt positions are dropped before it: their vocabulary-wide logits never exist.
    It is tried against the whole model first: some families scale or cap logits after the head.
    """
    inner = getattr(model, "model", None)
    # Looked up at each call: where the head itself wears an adapter, it is another module with the adapter off.
    if "lm_head" in model:
        head = lambda states: model.lm_head(states)  # noqa: E731
    elif hasattr(inner, "embed_tokens"):
        head = lambda states: model.model.embed_tokens.as_linear(states)  # noqa: E731
    else:
        return None
    if not callable(inner):
        return None
    probe = mx.arange(4)[None]
    same = mx.array_equal(head(inner(probe)), model(probe), equal_nan=True)
    return head if same.item() else None


def completion_states(model: nn.Module, head: Head | None, batch: Batch) -> mx.array:
    """What `head` is to be applied to where a completion token is predicted, [N, H]; without a head, [N, V]."""
    tokens, positions = mx.array(batch.tokens), mx.array(batch.positions)
    states = model(tokens) if head is None else model.model(tokens)
    return states.reshape(-1, states.shape[-1])[positions]


def to_logits(head: Head | None, states: mx.array) -> mx.array:
    """Float32 logits [n, V] of n `completion_states`."""
    return (states if head is None else head(states)).astype(mx.float32)


def completion_logits(model: nn.Module, head: Head | None, batch: Batch) -> mx.array:
    """Float32 logits where a completion token is predicted, [N, V]; `head` as given by `output_head`."""
    return to_logits(head, completion_states(model, head, batch))
