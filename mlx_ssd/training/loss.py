"""Cross-entropy over the completion tokens of one optimizer step, and its gradient.

The loss of a step is (sum of -log p of its completion tokens) / (number of its completion tokens), however
the step is cut into micro-batches. (mlx-lm weighs each micro-batch alike: issue 1413.)
"""

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from mlx_ssd.training.batches import Batch

Head = Callable[[mx.array], mx.array]


def output_head(model: nn.Module) -> Head | None:
    """The map from hidden states to logits, [..., H] -> [..., V]; None where a model has no such map.

    Where it is known, prompt positions are dropped before it: their vocabulary-wide logits never exist.
    It is tried against the whole model first: some families scale or cap logits after the head.
    """
    inner = getattr(model, "model", None)
    if "lm_head" in model:
        head = model.lm_head
    elif hasattr(inner, "embed_tokens"):
        head = inner.embed_tokens.as_linear
    else:
        return None
    if not callable(inner):
        return None
    probe = mx.arange(4)[None]
    same = mx.array_equal(head(inner(probe)), model(probe), equal_nan=True)
    return head if same.item() else None


def completion_logits(model: nn.Module, head: Head | None, batch: Batch) -> mx.array:
    """Float32 logits where a completion token is predicted, [N, V]; `head` as given by `output_head`."""
    tokens, positions = mx.array(batch.tokens), mx.array(batch.positions)
    states = model(tokens) if head is None else model.model(tokens)
    states = states.reshape(-1, states.shape[-1])[positions]
    return (states if head is None else head(states)).astype(mx.float32)


def completion_loss(model: nn.Module, head: Head | None, batch: Batch) -> mx.array:
    """The sum of -log p over the batch's N completion tokens, in nats."""
    logits = completion_logits(model, head, batch)
    return nn.losses.cross_entropy(logits, mx.array(batch.targets), reduction="sum")


def step_gradient(model: nn.Module, head: Head | None, batches: Sequence[Batch]) -> tuple[float, dict[str, Any], int]:
    """Loss in nats a token, its gradient by the trainable parameters, and the completion tokens of a step."""
    completion_tokens = sum(len(batch.targets) for batch in batches)
    # Divided inside, not after: sums over thousands of tokens could overflow a float16 backward pass.
    value_and_grad = nn.value_and_grad(model, lambda batch: completion_loss(model, head, batch) / completion_tokens)
    total, gradient = 0.0, None
    for batch in batches:
        loss, part = value_and_grad(batch)
        gradient = part if gradient is None else tree_map(mx.add, gradient, part)
        mx.eval(loss, gradient)  # frees this micro-batch's activations before the next
        total += loss.item()
    return total, gradient, completion_tokens
