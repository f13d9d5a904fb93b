"""The decoding distribution and its draw in PyTorch: the tokens that `decoding.draw` and `decoding.policy_mlx` choose.

The form is theirs (docs/decoding.md): after one subtraction and one multiplication everything is exact int64
arithmetic. What a policy comes to in numbers is taken from `decoding.draw`; all that touches logits is written anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from mlx_ssd.decoding.draw import (
    EXP2_NEGATIVE,
    FRACTION_BITS,
    NO_TOKEN,
    OCTAVES,
    Limits,
    Policy,
    candidates_needed,
    needs_ranking,
    needs_whole,
    numbers,
    weight_scale,
)

BLOCK = 64
LOW = 0xFFFFFFFF


def draw(logits: Tensor, policies: Policy | Sequence[Policy], uniforms: np.ndarray | Tensor) -> Tensor:
    """Tokens int64 [rows], on the logits' device; NO_TOKEN for a row that has no distribution.

    logits [rows, vocabulary] of any float type, weighed in float32; `policies` one a row, or one for all; uniforms
    [rows], whole numbers below 2**32 (`decoding.rng.uniform_u32`). A row's token depends on its own row alone.
    """
    rows, vocabulary = logits.shape
    u32 = uniforms if isinstance(uniforms, Tensor) else torch.from_numpy(uniforms.astype(np.int64))
    u32 = u32.to(logits.device, torch.int64)
    if not isinstance(policies, Sequence):
        return _draw((policies,), logits, u32)
    if len(policies) != rows:
        raise ValueError(f"{len(policies)} policies for {rows} rows")
    groups = _alike(tuple(policies), vocabulary)
    if len(groups) == 1:
        return _draw(tuple(policies), logits, u32)
    tokens = torch.empty(rows, dtype=torch.int64, device=logits.device)
    for group in groups:
        of_group = torch.tensor(group, device=logits.device)
        tokens[of_group] = _draw(tuple(policies[row] for row in group), logits[of_group], u32[of_group])
    return tokens


def support(policy: Policy, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The decoding distribution on candidates: (ids int64 [rows, n], weights int64 [rows, n], broken bool [rows, 1]).

    As `policy_mlx.support`: a candidate's probability is its weight by the sum of its row.
    """
    return _support((policy,), logits)


def probabilities(policy: Policy, logits: Tensor) -> Tensor:
    """float64 probabilities [rows, vocabulary]; nan where a row has no distribution."""
    ids, drawn_weights, broken = support(policy, logits)
    shares = drawn_weights.double() / drawn_weights.sum(-1, keepdim=True)
    found = torch.zeros(logits.shape, dtype=torch.float64, device=logits.device).scatter(-1, ids, shares)
    return found.masked_fill(broken, torch.nan)


@lru_cache(maxsize=64)
def _alike(policies: tuple[Policy, ...], vocabulary: int) -> list[list[int]]:
    """Rows that need the same work, and so can be drawn together."""
    groups: dict[tuple[bool, bool, bool], list[int]] = {}
    for row, policy in enumerate(policies):
        whole = candidates_needed(policy, vocabulary) == vocabulary
        kind = needs_ranking(policy, vocabulary), needs_whole(policy), whole
        groups.setdefault(kind, []).append(row)
    return list(groups.values())


@lru_cache(maxsize=64)
def _numbers(policies: tuple[Policy, ...], device: torch.device) -> tuple[list[Limits], Tensor]:
    limits, scale = numbers(policies)
    on_device = [Limits(*(torch.from_numpy(column).to(device) for column in stage)) for stage in limits]
    return on_device, torch.from_numpy(scale).to(device)


def _draw(policies: tuple[Policy, ...], logits: Tensor, u32: Tensor) -> Tensor:
    ids, drawn_weights, broken = _support(policies, logits)
    cumulative = drawn_weights.cumsum(-1)
    threshold = _scaled(u32[:, None], cumulative[:, -1:])
    tokens = ids.gather(-1, torch.searchsorted(cumulative, threshold, right=True))
    return tokens.masked_fill(broken, NO_TOKEN)[:, 0]


def _support(policies: tuple[Policy, ...], logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`policies`: one for all rows, or one a row and all of one kind."""
    logits, vocabulary = logits.float(), logits.shape[-1]
    limits, scale = _numbers(policies, logits.device)
    if needs_ranking(policies[0], vocabulary):
        ids = _best(logits, max(candidates_needed(policy, vocabulary) for policy in policies))
        values = logits.gather(-1, ids)
    else:
        ids = torch.arange(vocabulary, device=logits.device).expand(logits.shape)
        values = logits
    top = values.amax(-1, keepdim=True)
    broken = ~top.isfinite() | values.isnan().any(-1, keepdim=True)
    values, top = values.masked_fill(broken, 0), top.masked_fill(broken, 0)
    whole = None
    if needs_whole(policies[0]):
        at_one = torch.tensor(weight_scale(1), device=logits.device)
        whole = _weights(logits.masked_fill(broken, 0), top, at_one).sum(-1, keepdim=True)
    rank = torch.arange(values.shape[-1], device=logits.device)
    kept = torch.ones_like(values, dtype=torch.bool)
    for stage in limits:
        started, kept = kept, kept & (rank < stage.top_k)
        mass = _weights(values, top, stage.scale).masked_fill(~started, 0)
        if whole is None:
            whole = mass.masked_fill(~(kept | stage.before_top_k), 0).sum(-1, keepdim=True)
        above = mass.cumsum(-1) - mass
        kept = kept & ((above < _scaled(stage.top_p, whole).clamp_min(1)) | (stage.top_p == 1 << 32))
        whole = None  # of the whole vocabulary: for the first stage alone
    return ids, _weights(values, top, scale).masked_fill(~kept, 0), broken


def _best(logits: Tensor, count: int) -> Tensor:
    """Ids int64 [rows, count] of the best by (value descending, id ascending); nan counts as best, so it is seen.

    Only the `count` blocks with the best maxima need a look: what is outside them is beaten by one token in each.
    """
    rows, vocabulary = logits.shape
    ids = torch.arange(vocabulary, device=logits.device).expand(logits.shape)
    if 2 * count * BLOCK < vocabulary:
        padded = torch.nn.functional.pad(logits, (0, -vocabulary % BLOCK), value=-torch.inf)
        blocks = padded.view(rows, -1, BLOCK)
        maxima = blocks.amax(-1).masked_fill(blocks.isnan().any(-1), torch.nan)
        numbers_of_blocks = torch.arange(maxima.shape[-1], device=logits.device).expand(maxima.shape)
        chosen = _ids(_keys(maxima, numbers_of_blocks).topk(count).values)
        logits = blocks.gather(1, chosen[..., None].expand(-1, -1, BLOCK)).flatten(1)
        ids = (chosen[..., None] * BLOCK + torch.arange(BLOCK, device=logits.device)).flatten(1)
    return _ids(_keys(logits, ids).topk(count).values)


def _keys(values: Tensor, ids: Tensor) -> Tensor:
    """int64, no two alike, whose descending order is (value descending, id ascending), nan first; -0 equals +0."""
    bits = values.view(torch.int32).long()
    bits = bits.masked_fill(bits == -(1 << 31), 0)
    rank = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).masked_fill(values.isnan(), 0x7FFFFFFF)
    return (rank << 32) | (LOW - ids)


def _ids(keys: Tensor) -> Tensor:
    return LOW - (keys & LOW)


def _weights(values: Tensor, top: Tensor, scale: Tensor) -> Tensor:
    """About 2**41 exp((values - top) / temperature), as int64; scale is `weight_scale` of the temperature."""
    exponent = ((top - values) * scale).clamp_max(OCTAVES << FRACTION_BITS).round().long()
    fraction = exponent & ((1 << FRACTION_BITS) - 1)
    power = torch.full_like(fraction, EXP2_NEGATIVE[-1])
    for coefficient in EXP2_NEGATIVE[-2::-1]:
        power.mul_(fraction).bitwise_right_shift_(FRACTION_BITS).add_(coefficient)
    return (power << 11) >> (exponent >> FRACTION_BITS)


def _scaled(fraction: Tensor, total: Tensor) -> Tensor:
    """floor(fraction * total / 2**32) exactly, for fraction up to 2**32 and total below 2**62."""
    return (fraction * (total >> 31) + ((fraction * (total & 0x7FFFFFFF)) >> 31)) >> 1
