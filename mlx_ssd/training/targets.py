"""Soft targets: at each completion position the distribution q_s that the sampled token is one draw of.

q_s is the base's own distribution under the sampling policy, tempered, truncated and renormalised (the q_s of
the paper's appendix B.1). It is recomputed with the adapter off from the batch at hand, so nothing is stored,
and it comes from the very function that the sampler draws from.
"""

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from mlx_ssd.decoding.draw import Policy
from mlx_ssd.decoding.policy_mlx import support
from mlx_ssd.errors import WorkFailed
from mlx_ssd.training.batches import Batch
from mlx_ssd.training.forward import Head, completion_states, to_logits
from mlx_ssd.training.lora import adapter_off

POSITIONS_AT_A_TIME = 256  # vocabulary-wide numbers (a dozen arrays of them without top-k) exist only for so many


@dataclass(frozen=True)
class SoftTargets:
    """q_s of N positions on n candidates each: top-k of them, or the vocabulary where there is no top-k."""

    ids: mx.array  # uint32 [N, n]
    probabilities: mx.array  # float32 [N, n], each row sums to 1; 0 outside the support


def soft_targets(model: nn.Module, head: Head | None, batch: Batch, policy: Policy) -> SoftTargets:
    """The evaluated q_s of a batch's completion positions; `head` as given by `output_head`.

    Raises WorkFailed where the base has no distribution: a logit nan or +inf, or none finite.
    """
    ids, probabilities, failed = [], [], 0
    with adapter_off(model):
        states = completion_states(model, head, batch)
        for start in range(0, len(batch.positions), POSITIONS_AT_A_TIME):
            logits = to_logits(head, states[start : start + POSITIONS_AT_A_TIME])
            candidates, weights, broken = support(policy, logits)
            shares = weights.astype(mx.float32) / weights.sum(axis=-1, keepdims=True).astype(mx.float32)
            mx.eval(candidates, shares, broken)  # an unevaluated array would keep the whole pass in memory
            ids.append(candidates)
            probabilities.append(shares)
            failed += broken.sum().item()
    if failed:
        raise WorkFailed(
            f"the base's logits give no distribution at {failed} of {len(batch.positions)} completion positions "
            "(nan, infinity): its weights are damaged, or model.dtype is too narrow for it (try float32)"
        )
    return SoftTargets(mx.concatenate(ids), mx.concatenate(probabilities))
