"""The decoding distribution written plainly: a softmax, a sort and cumulative sums in float64.

`policy` is the integer form that draws; this is what it is to come to (docs/decoding.md), written without it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mlx_ssd.decoding.draw import Policy
from mlx_ssd.decoding.policy import EDGE, DecodingPolicy


def probabilities(policy: Policy, logits: Tensor) -> tuple[Tensor, Tensor]:
    """(float64 [rows, vocabulary], each row sums to 1; float64 [rows]) of logits [rows, vocabulary].

    The second is the distance of top-p from the nearest cumulative mass that it was compared with, inf where there is
    none: where it is of rounding's size, a token may as well stand on the other side.
    """
    decoded, nearest = logits.double(), torch.full(logits.shape[:1], torch.inf, dtype=torch.float64)
    for stage in policy.stages:
        decoded, distance = _stage(stage, decoded)
        nearest = torch.minimum(nearest, distance)
    return decoded.softmax(-1), nearest


def _stage(policy: DecodingPolicy, logits: Tensor) -> tuple[Tensor, Tensor]:
    """The log of one stage's distribution, up to a constant, -inf outside of its support; top-p's nearest mass."""
    ranked, ids = logits.sort(dim=-1, descending=True, stable=True)  # stable: of equal logits the lower id first
    temperature = 1.0 if policy.greedy else policy.temperature
    tempered, rank = ranked / temperature, torch.arange(ranked.shape[-1])
    kept = rank < (1 if policy.greedy else policy.top_k or ranked.shape[-1])
    kept = kept.expand(ranked.shape)
    distance = torch.full(ranked.shape[:1], torch.inf, dtype=torch.float64)
    if not policy.greedy and policy.top_p < 1:
        measured = tempered if policy.order == "temperature_first" else ranked
        before = torch.ones_like(kept) if policy.order == "mlx_lm" else kept
        mass = measured.masked_fill(~before, -torch.inf).softmax(-1)
        above = mass.cumsum(-1) - mass
        compared = before & (rank > 0) & (mass > 0)
        distance = (above - policy.top_p).abs().masked_fill(~compared, torch.inf).amin(-1)
        kept = kept & ((above < policy.top_p - EDGE) | (rank == 0))
    cut = tempered.masked_fill(~kept, -torch.inf)
    return torch.empty_like(cut).scatter(-1, ids, cut), distance
