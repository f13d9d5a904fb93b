"""What the student is to say at a completion position: the sampled token, or the distribution it was drawn from.

That distribution, q_s, is the base's own under the sampling policy, tempered, truncated and renormalised (the q_s of
the paper's appendix B.1). It is recomputed from the base's hidden states, so nothing is stored, and it comes from the
very function that the sampler draws from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlx_ssd.decoding.draw import Policy
from mlx_ssd.decoding.policy_mlx import support
from mlx_ssd.errors import WorkFailed
from mlx_ssd.training.batches import Batch


@dataclass(frozen=True)
class Targets:
    """The distribution to learn at n positions, on m candidates each: one token, top-k of them, or all."""

    ids: mx.array  # uint32 [n, m]
    probabilities: mx.array  # float32 [n, m], each row sums to 1; 0 outside the support
    broken: mx.array  # bool [n, 1]: the base has no distribution there

    @property
    def soft(self) -> bool:
        return self.ids.shape[1] > 1


# (start, stop) of a batch's completion positions -> their targets
TargetsOf = Callable[[int, int], Targets]
# batch -> (states [N, H], head) of the base, which the student began from
Base = Callable[[Batch], tuple[mx.array, Callable[[mx.array], mx.array]]]


def token_targets(tokens: np.ndarray) -> TargetsOf:
    """The completion tokens themselves."""
    ids = mx.array(tokens.astype(np.uint32))[:, None]

    def of(start: int, stop: int) -> Targets:
        chosen = ids[start:stop]
        return Targets(chosen, mx.ones(chosen.shape), mx.zeros(chosen.shape, dtype=mx.bool_))

    return of


def soft_targets(base: Base, batch: Batch, policy: Policy) -> TargetsOf:
    """q_s of a batch: the base's forward pass is computed here, its logits only for the positions asked for."""
    states, head = base(batch)
    mx.eval(states)

    def of(start: int, stop: int) -> Targets:
        ids, weights, broken = support(policy, head(states[start:stop]).astype(mx.float32))
        shares = weights.astype(mx.float32) / weights.sum(axis=-1, keepdims=True).astype(mx.float32)
        return Targets(ids, shares, broken)

    return of


def no_distribution(failed: int, positions: int) -> WorkFailed:
    return WorkFailed(
        f"the base's logits give no distribution at {failed} of {positions} completion positions "
        "(nan, infinity): its weights are damaged, or model.dtype is too narrow for it (try float32)"
    )
