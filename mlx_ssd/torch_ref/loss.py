"""The loss of training in PyTorch, its gradient by autograd: a twin of `training.loss`, a row at a time.

A row is anything with `prompt_ids` and `completion_ids`. The loss of a step is (sum of the cross-entropies at its
completion positions) / (number of these).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

from mlx_ssd import heartbeat
from mlx_ssd.decoding.draw import Policy
from mlx_ssd.torch_ref.adapter import Adapter
from mlx_ssd.torch_ref.distribution import probabilities
from mlx_ssd.torch_ref.model import completion_logits


@dataclass(frozen=True)
class Loss:
    """In nats a completion token."""

    total: float
    kept_mass: float | None  # -log of the student's mass on the targets' support; None where targets are tokens


def step_gradient(
    model: Any, adapter: Adapter, rows: Sequence[Any], policy: Policy | None = None
) -> tuple[Loss, dict[str, Tensor]]:
    """The loss of a step and its gradient by the adapter's tensors. With `policy` the targets are the base's own
    distribution under it, the base being the model with its adapter off; without, the completion tokens."""
    tokens = sum(len(row.completion_ids) for row in rows)
    for tensor in adapter.tensors.values():
        tensor.grad = None
    total, kept = 0.0, 0.0
    for row in rows:
        targets = targets_of(model, adapter, row, policy)
        loss, kept_mass = cross_entropies(completion_logits(model, row.prompt_ids, row.completion_ids), targets)
        (loss / tokens).backward()
        total, kept = total + loss.item(), kept + kept_mass.item()
        heartbeat.alive()
    gradient = {name: tensor.grad for name, tensor in adapter.tensors.items()}
    return Loss(total / tokens, kept / tokens if policy else None), gradient


@torch.no_grad()
def targets_of(model: Any, adapter: Adapter, row: Any, policy: Policy | None) -> Tensor:
    """Completion tokens int64 [n], or their distributions float64 [n, vocabulary]."""
    if policy is None:
        return torch.tensor(row.completion_ids)
    with adapter.off():
        return probabilities(policy, completion_logits(model, row.prompt_ids, row.completion_ids).float())[0]


def cross_entropies(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over n positions, in nats: of -sum_v q(v) log p(v), and of -log p(support of q). Logits [n, vocabulary]."""
    logits = logits.double()
    loss = cross_entropy(logits, targets, reduction="sum")
    if targets.ndim == 1:
        return loss, torch.zeros(())
    inside = log_softmax(logits.detach(), -1).masked_fill(targets == 0, -torch.inf)
    return loss, -inside.logsumexp(-1).sum()
