"""Cross-entropy over the completion tokens of one optimizer step, and its gradient.

The loss of a step is (sum of the cross-entropies at its completion positions) / (number of these), however
the step is cut into micro-batches. (mlx-lm weighs each micro-batch alike: issue 1413.) The target of a position
is the sampled token, or the distribution that it was drawn from (targets.py).
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from mlx_ssd.decoding.draw import Policy
from mlx_ssd.training.batches import Batch
from mlx_ssd.training.forward import Head, completion_logits
from mlx_ssd.training.targets import SoftTargets, soft_targets


def soft_cross_entropy(logits: mx.array, targets: SoftTargets) -> mx.array:
    """The sum over N positions of -sum_v q(v) log p(v), in nats; float32 logits [N, V].

    With respect to a logit its gradient is p(v) - q(v): +p(v) on every token outside q's support.
    """
    q = targets.probabilities
    chosen = mx.take_along_axis(logits, targets.ids, axis=-1)
    chosen = mx.where(q > 0, chosen, 0)  # a model may rule a token out by a logit of -inf, and 0 * inf is nan
    return (mx.logsumexp(logits, axis=-1) - (q * chosen).sum(axis=-1)).sum()


def completion_loss(model: nn.Module, head: Head | None, batch: Batch, soft: SoftTargets | None = None) -> mx.array:
    """The summed cross-entropy at the batch's N completion positions, in nats: to the completion tokens
    themselves, or to `soft`."""
    logits = completion_logits(model, head, batch)
    if soft is not None:
        return soft_cross_entropy(logits, soft)
    return nn.losses.cross_entropy(logits, mx.array(batch.targets), reduction="sum")


def step_gradient(
    model: nn.Module, head: Head | None, batches: Sequence[Batch], target_policy: Policy | None = None
) -> tuple[float, dict[str, Any], int]:
    """Loss in nats a token, its gradient by the trainable parameters, and the completion tokens of a step.

    With a `target_policy` the targets are soft: what it makes of the base's logits.
    """
    completion_tokens = sum(len(batch.targets) for batch in batches)
    # Divided inside, not after: sums over thousands of tokens could overflow a float16 backward pass.
    value_and_grad = nn.value_and_grad(
        model, lambda batch, soft: completion_loss(model, head, batch, soft) / completion_tokens
    )
    total, gradient = 0.0, None
    for batch in batches:
        # Evaluated outside of the differentiated function, so that no gradient graph of it is kept.
        soft = None if target_policy is None else soft_targets(model, head, batch, target_policy)
        loss, part = value_and_grad(batch, soft)
        gradient = part if gradient is None else tree_map(mx.add, gradient, part)
        mx.eval(loss, gradient)  # frees this micro-batch's activations before the next
        total += loss.item()
    return total, gradient, completion_tokens
