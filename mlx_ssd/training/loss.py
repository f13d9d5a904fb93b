"""Cross-entropy over the completion tokens of one optimizer step, and its gradient, a few positions at a time.

The loss of a step is (sum of the cross-entropies at its completion positions) / (number of these), however the step is
cut into micro-batches. (mlx-lm weighs each micro-batch alike: issue 1413.)

Logits of all positions would be the largest array of the whole step: 2,048 positions of a vocabulary of 151,936 take
1.2 GB in float32, and a plain cross-entropy three times that. Here they exist for one chunk, which is evaluated before
the next is begun: MLX allocates what it schedules, several operations ahead, so that a lazy loop holds several chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from mlx_ssd import heartbeat
from mlx_ssd.budget.training import CHUNK_BYTES
from mlx_ssd.decoding.draw import Policy
from mlx_ssd.training.batches import Batch
from mlx_ssd.training.forward import Head, completion_states, forward_pass
from mlx_ssd.training.sums import row_sums
from mlx_ssd.training.targets import Base, Targets, TargetsOf, no_distribution, soft_targets, token_targets


@dataclass(frozen=True)
class Loss:
    """In nats a completion token."""

    total: float
    # -log of the student's mass on the support of q_s, the rest being its cross-entropy within it (the paper's
    # appendix B.1: support compression, and reshaping). None where targets are tokens.
    kept_mass: float | None
    tokens: int

    @property
    def terms(self) -> dict[str, float]:
        if self.kept_mass is None:
            return {}
        return {"loss_kept_mass": self.kept_mass, "loss_conditional": self.total - self.kept_mass}


@dataclass(frozen=True)
class Soft:
    """Soft targets: the policy that sampled the rows, on the base's logits."""

    base: Base
    policy: Policy


def cross_entropy(logits: mx.array, targets: Targets) -> tuple[mx.array, mx.array]:
    """Sums over n positions, in nats: of -sum_v q(v) log p(v), and of -log p(support of q). Float32 logits [n, V].

    With respect to a logit the first one's gradient is p(v) - q(v): +p(v) on every token outside the support.
    The second has none.
    """
    q, ids = targets.probabilities, targets.ids
    inside = q > 0

    # Of its own, so that softmax is the only array of the logits' size that is made beside them, and made once: on a
    # CPU a second pass of exponentials takes a fifth of the loss's time.
    @mx.custom_function
    def sums(logits: mx.array) -> tuple[mx.array, ...]:
        softmax = mx.softmax(logits, axis=-1)
        rounding = row_sums(softmax)  # 1, had MLX summed exactly
        chosen = mx.take_along_axis(logits, ids, axis=-1)
        # The logsumexp: the likeliest token's logit less its log-probability, which is never far from 0.
        whole = logits.max(axis=-1) - mx.log(softmax.max(axis=-1) / rounding[:, 0])
        # A model may rule a token out by a logit of -inf, and 0 * inf is nan.
        loss = whole - (q * mx.where(inside, chosen, 0)).sum(axis=-1)
        kept = mx.logsumexp(mx.where(inside, chosen, -mx.inf), axis=-1)
        return loss.sum(), (whole - kept).sum(), softmax, rounding

    @sums.vjp
    def _(primals: Any, cotangents: Any, outputs: Any) -> mx.array:
        *_, softmax, rounding = outputs
        rows = mx.arange(softmax.shape[0])[:, None]
        return softmax.at[rows, ids].add(-q * rounding) * (cotangents[0] / rounding)

    return sums(logits)[:2]


def chunk_positions(vocabulary: int, soft: Soft | None = None) -> int:
    """How many positions' logits exist at a time. Targets over the whole vocabulary, of sampling without top-k, take
    64 more bytes a logit while they are computed; with seven times fewer positions that is what others take."""
    whole = soft is not None and not soft.policy.top_k
    return max(CHUNK_BYTES // (4 * vocabulary * (7 if whole else 1)), 1)


def step_gradient(
    model: nn.Module, head: Head | None, batches: Sequence[Batch], soft: Soft | None = None, tokens: int | None = None
) -> tuple[Loss, dict[str, mx.array]]:
    """The loss of a step, and its gradient by trainable parameter (evaluated). `head` as given by `output_head`.

    tokens: the completion tokens of the whole step, where these are a part of it (perhaps none): loss and gradient are
    then its part. Raises WorkFailed where the targets are soft and the base has no distribution.
    """
    tokens = sum(len(batch.targets) for batch in batches) if tokens is None else tokens
    total, kept, gradient = 0.0, 0.0, None
    for batch in batches:
        targets = _targets(batch, soft)  # before the student's activations take their room
        forward = forward_pass(model, head, batch)
        heartbeat.alive()
        # Divided inside, not after: sums over thousands of tokens could overflow a float16 backward pass.
        found = head_gradient(model, head, forward.states, targets, tokens, soft)
        part = forward.gradient(found.of_states)
        del forward
        for name, more in found.of_head.items():
            part[name] = part[name] + more
        gradient = part if gradient is None else {name: gradient[name] + more for name, more in part.items()}
        mx.eval(gradient)  # frees this micro-batch's activations before the next
        heartbeat.alive()
        total, kept = total + found.loss, kept + found.kept
    if gradient is None:
        gradient = {name: mx.zeros_like(array) for name, array in tree_flatten(model.trainable_parameters())}
    return Loss(total, kept if soft else None, tokens), gradient


def mean_loss(model: nn.Module, head: Head | None, batches: Sequence[Batch], soft: Soft | None = None) -> Loss:
    """The loss alone, without a gradient."""
    tokens = sum(len(batch.targets) for batch in batches)
    total, kept = 0.0, 0.0
    for batch in batches:
        targets, states = _targets(batch, soft), completion_states(model, head, batch)
        mx.eval(states)
        heartbeat.alive()
        logits_of = head.of(model) if head else _identity
        for start, stop in _chunks(states.shape[0], logits_of(states[:1]).shape[-1], soft):
            chunk = targets(start, stop)
            sums = cross_entropy(logits_of(states[start:stop]).astype(mx.float32), chunk)
            mx.eval(*sums, chunk.broken)
            heartbeat.alive()
            _check(chunk, states.shape[0])
            total, kept = total + sums[0].item(), kept + sums[1].item()
    return Loss(total / tokens, kept / tokens if soft else None, tokens)


@dataclass(frozen=True)
class HeadGradient:
    loss: float
    kept: float
    of_states: mx.array  # [N, H]
    of_head: dict[str, mx.array]  # of the head's own trainable parameters, by their name in the model


def head_gradient(
    model: nn.Module, head: Head | None, states: mx.array, targets: TargetsOf, divisor: int, soft: Soft | None = None
) -> HeadGradient:
    """The loss from evaluated states [N, H], divided by `divisor`, and its gradients. soft: what `targets` are of."""
    module = head.module(model) if head else nn.Module()
    logits_of = head.of(model) if head else _identity
    names = [name for name, _ in tree_flatten(module.trainable_parameters())]

    def loss(states: mx.array, parameters: list[mx.array], chunk: Targets) -> tuple[mx.array, mx.array]:
        module.update(tree_unflatten(list(zip(names, parameters, strict=True))))
        total, kept = cross_entropy(logits_of(states).astype(mx.float32), chunk)
        return total / divisor, kept / divisor

    differentiated = mx.value_and_grad(loss, argnums=(0, 1) if names else 0)
    parameters = [array for _, array in tree_flatten(module.trainable_parameters())]
    total, kept, of_states, of_head = 0.0, 0.0, [], None
    try:
        for start, stop in _chunks(states.shape[0], logits_of(states[:1]).shape[-1], soft):
            chunk = targets(start, stop)
            (chunk_loss, chunk_kept), part = differentiated(states[start:stop], parameters, chunk)
            of_chunk, of_parameters = part if names else (part, [])
            if of_head is not None:
                of_parameters = [a + b for a, b in zip(of_head, of_parameters, strict=True)]
            mx.eval(chunk_loss, chunk_kept, of_chunk, of_parameters, chunk.broken)
            heartbeat.alive()
            _check(chunk, states.shape[0])
            total, kept, of_head = total + chunk_loss.item(), kept + chunk_kept.item(), of_parameters
            of_states.append(of_chunk)
    finally:
        module.update(tree_unflatten(list(zip(names, parameters, strict=True))))
    paths = [f"{head.path}.{name}" for name in names] if head else []
    return HeadGradient(total, kept, mx.concatenate(of_states), dict(zip(paths, of_head, strict=True)))


def _chunks(positions: int, vocabulary: int, soft: Soft | None) -> list[tuple[int, int]]:
    size = chunk_positions(vocabulary, soft)
    return [(start, min(start + size, positions)) for start in range(0, positions, size)]


def _targets(batch: Batch, soft: Soft | None) -> TargetsOf:
    return soft_targets(soft.base, batch, soft.policy) if soft else token_targets(batch.targets)


def _check(chunk: Targets, positions: int) -> None:
    if failed := chunk.broken.sum().item():
        raise no_distribution(failed, positions)


def _identity(states: mx.array) -> mx.array:
    return states
