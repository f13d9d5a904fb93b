"""The decoding distribution and the draw in integers: the same tokens from numpy, MLX and torch.

A float softmax and its cumulative sum differ between backends in their last bits, and over a whole vocabulary
by much more. Here floats end after one subtraction and one multiplication; everything after is exact int64
arithmetic, so every order of summation gives the same sums. Every function takes `xp`, `numpy` or `mlx.core`.

One scale serves any vocabulary: the most likely token weighs 2**41, so the sum over 2**20 tokens stays below
2**61, and a token 42 powers of two below the first weighs nothing.
"""

import math
from collections.abc import Sequence
from itertools import zip_longest
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from mlx_ssd.decoding.policy import DecodingPolicy, StagedPolicy

Policy = DecodingPolicy | StagedPolicy

# The token of a row that has no distribution (nan, +inf, nothing finite). A check would make the device wait;
# whoever reads the tokens sees it.
NO_TOKEN = 0xFFFFFFFF

FRACTION_BITS = 20  # the exponent's resolution: 2**-20 of a power of two, relative 3.3e-7 in a weight
OCTAVES = 42

# 2**-x on [0, 1] as a polynomial, times 2**30: the interpolation at the seven Chebyshev-Lobatto nodes, exact
# at both ends so that weights fall strictly from octave to octave; relative error 1.1e-8 (tested). Written
# out, because computing it would round differently on different machines.
EXP2_NEGATIVE = (1073741824, -744261047, 257939510, -59584643, 10288330, -1370516, 117454)


def order_keys(xp: ModuleType, values: Any, ids: Any) -> Any:
    """uint64 keys whose ascending order is (value descending, id ascending), nan first.

    values float32 [..., n], ids uint32 broadcast to it. Keys are unique, so a partition has no arbitrary
    ties, and they carry value and id (`from_keys`). Bits alone decide, as a GPU
    may take subnormals for zero when it compares floats.
    """
    bits = values.view(xp.uint32)
    bits = xp.where(bits == 0x80000000, xp.array(0, dtype=xp.uint32), bits)  # -0 equals +0
    rank = xp.where(bits >> 31 == 1, bits, bits ^ xp.array(0x7FFFFFFF, dtype=xp.uint32))
    is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
    rank = xp.where(is_nan, xp.array(0, dtype=xp.uint32), rank)
    return (rank.astype(xp.uint64) << 32) | ids.astype(xp.uint64)


def from_keys(xp: ModuleType, keys: Any) -> tuple[Any, Any]:
    """(values float32, ids uint32) of `order_keys`; -0 comes back as +0."""
    rank = (keys >> 32).astype(xp.uint32)
    bits = xp.where(rank >> 31 == 1, rank, rank ^ xp.array(0x7FFFFFFF, dtype=xp.uint32))
    return bits.view(xp.float32), (keys & 0xFFFFFFFF).astype(xp.uint32)


def best_keys(xp: ModuleType, keys: Any, count: int) -> Any:
    """The `count` smallest keys of each row, ascending: [rows, n] -> [rows, min(count, n)]."""
    if count < keys.shape[-1]:
        keys = xp.partition(keys, count - 1, axis=-1)[..., :count]
    return xp.sort(keys, axis=-1)


def weight_scale(temperature: float) -> np.float32:
    """What `weights` multiplies a logit's distance from the largest by, at this temperature."""
    return np.float32(math.log2(math.e) / temperature * 2**FRACTION_BITS)


def weights(xp: ModuleType, values: Any, top: Any, scale: Any) -> Any:
    """About 2**41 exp((values - top) / temperature), as int64.

    values and top float32, top the largest; scale float32, the `weight_scale` of the temperature.
    """
    # No addition follows the multiplication, so no compiler can fuse the two into another rounding.
    exponent = xp.minimum((top - values) * xp.array(scale), xp.array(np.float32(OCTAVES << FRACTION_BITS)))
    exponent = xp.round(exponent).astype(xp.int32)
    fraction = (exponent & ((1 << FRACTION_BITS) - 1)).astype(xp.int64)
    power = xp.full(fraction.shape, EXP2_NEGATIVE[-1], dtype=xp.int64)
    for coefficient in EXP2_NEGATIVE[-2::-1]:
        power = ((power * fraction) >> FRACTION_BITS) + coefficient
    return (power << 11) >> (exponent >> FRACTION_BITS)


def scaled(xp: ModuleType, fraction_u32: Any, total: Any) -> Any:
    """floor(fraction_u32 * total / 2**32) exactly: int64 in [0, 2**32) times int64 in [0, 2**62)."""
    high, low = total >> 31, total & 0x7FFFFFFF
    return (fraction_u32 * high + ((fraction_u32 * low) >> 31)) >> 1


def candidates_needed(policy: Policy, vocabulary: int) -> int:
    """How many of the best tokens hold the whole support for certain; `vocabulary` without a top-k."""
    first = policy.stages[0]
    return min(1 if first.greedy else first.top_k or vocabulary, vocabulary)


def needs_ranking(policy: Policy, vocabulary: int) -> bool:
    """False if the policy keeps every token, whose order is then of no account."""
    return any(stage.greedy or 0 < stage.top_k < vocabulary or stage.top_p < 1 for stage in policy.stages)


def needs_whole(policy: Policy) -> bool:
    """True if top-p is measured against the untempered mass of the whole vocabulary."""
    first = policy.stages[0]
    return first.order == "mlx_lm" and first.top_p < 1 and not first.greedy


class Limits(NamedTuple):
    """What one stage cuts, as numbers: arrays [rows, 1] where each row has a policy of its own, or [1, 1]."""

    top_k: Any  # int64: the ranks that may stay
    top_p: Any  # int64: floor(2**32 top_p); 2**32 cuts nothing
    scale: Any  # float32: `weight_scale` of the temperature that top-p measures mass at
    before_top_k: Any  # bool: its mass is of all tokens that the stage starts from, not of top-k's survivors


# A stage that cuts nothing: pads a policy of fewer stages than its batch mates'.
UNLIMITED = (2**31 - 1, 2**32, np.float32(1), False)


def numbers(policies: Sequence[Policy]) -> tuple[list[Limits], np.ndarray]:
    """(limits, scale float32 [n, 1]) of n policies: the stages that cut anything, and the last temperature."""
    cuts, scales = [], []
    for policy in policies:
        temperature, limits = 1.0, []  # temperature of the distribution that a stage starts from
        for stage in policy.stages:
            if stage.greedy:
                limits.append((1, *UNLIMITED[1:]))
                continue
            tempered = temperature * stage.temperature
            if stage.top_k or stage.top_p < 1:
                measured = tempered if stage.order == "temperature_first" else temperature
                top_k, top_p = stage.top_k or UNLIMITED[0], int(stage.top_p * 2**32)
                limits.append((top_k, top_p, weight_scale(measured), stage.order == "mlx_lm"))
            temperature = tempered
        cuts.append(limits)
        scales.append(weight_scale(temperature))

    def column(values: Sequence, dtype: type) -> np.ndarray:
        return np.array(values, dtype)[:, None]

    types = (np.int64, np.int64, np.float32, np.bool_)
    stages = [Limits(*map(column, zip(*cut, strict=True), types)) for cut in zip_longest(*cuts, fillvalue=UNLIMITED)]
    return stages, column(scales, np.float32)


def support_weights(
    xp: ModuleType, limits: Sequence[Limits], scale: Any, values: Any, whole: Any = None
) -> tuple[Any, Any]:
    """Integer probabilities of candidates: (weights int64 [rows, n], broken bool [rows, 1]).

    A candidate's probability is its weight by the sum of its row; 0 is outside the support. Rows that have no
    distribution (nan, +inf, nothing finite) are `broken`, with weights that mean nothing.
    limits, scale: `numbers` of the policies, as arrays of `xp`.
    values float32 [rows, n]: the n best logits, descending (in any order if the policy keeps every token).
    whole int64 [rows, 1]: `weights` at temperature 1 summed over the vocabulary, where `needs_whole`.
    """
    top = xp.max(values, axis=-1, keepdims=True)
    broken = ~xp.isfinite(top)
    zero = xp.array(0, dtype=xp.int64)
    values = xp.where(broken, xp.array(0, dtype=xp.float32), values)
    top = xp.where(broken, xp.array(0, dtype=xp.float32), top)
    rank = xp.arange(values.shape[-1])
    kept = xp.ones(values.shape, dtype=xp.bool_)
    for stage in limits:
        # Survivors are always the first ranks, so in mlx_lm's order it makes no difference that top-k comes
        # first here: its top-p is measured against the mass of all tokens that the stage starts from.
        started, kept = kept, kept & (rank < stage.top_k)
        mass = xp.where(started, weights(xp, values, top, stage.scale), zero)
        if whole is None:
            whole = xp.where(kept | stage.before_top_k, mass, zero).sum(axis=-1, keepdims=True)
        # Rounded down, so equal masses that reach top-p exactly have reached it; at least 1, so the first stays.
        limit = xp.maximum(scaled(xp, stage.top_p, whole), xp.array(1, dtype=xp.int64))
        kept = kept & ((xp.cumsum(mass, axis=-1) - mass < limit) | (stage.top_p >> 32 == 1))
        whole = None  # given for the first stage alone
    return xp.where(kept, weights(xp, values, top, scale), zero), broken


def pick(xp: ModuleType, drawn_weights: Any, u32: Any) -> Any:
    """Inverse cumulative draw: weights int64 [rows, n], u32 uint32 [rows] -> index [rows, 1], uint32."""
    cumulative = xp.cumsum(drawn_weights, axis=-1)
    return first_above(xp, cumulative, scaled(xp, u32.astype(xp.int64)[:, None], cumulative[:, -1:]))


def first_above(xp: ModuleType, cumulative: Any, threshold: Any) -> Any:
    """Index of the first cumulative sum [rows, n] above the threshold [rows, 1]: uint32 [rows, 1]."""
    return (cumulative <= threshold).astype(xp.uint32).sum(axis=-1, keepdims=True).astype(xp.uint32)


def draw(policy: Policy, logits: np.ndarray, u32: np.ndarray) -> np.ndarray:
    """The sampler in numpy: logits float32 [rows, vocabulary], u32 uint32 [rows] -> tokens uint32 [rows].

    Bit for bit what `policy_mlx.make_sampler` gives, by the plain way over the whole vocabulary.
    """
    logits = np.ascontiguousarray(logits, dtype=np.float32)
    vocabulary = logits.shape[-1]
    ids = np.arange(vocabulary, dtype=np.uint32)
    with np.errstate(invalid="ignore", over="ignore"):
        whole = None
        if needs_whole(policy):
            whole = weights(np, logits, logits.max(axis=-1, keepdims=True), weight_scale(1)).sum(axis=-1, keepdims=True)
        if needs_ranking(policy, vocabulary):
            keys = best_keys(np, order_keys(np, logits, ids), candidates_needed(policy, vocabulary))
            values, ids = from_keys(np, keys)
        else:
            values, ids = logits, np.broadcast_to(ids, logits.shape)
        drawn_weights, broken = support_weights(np, *numbers([policy]), values, whole)
    tokens = np.take_along_axis(ids, pick(np, drawn_weights, u32), axis=-1)
    return np.where(broken, np.uint32(NO_TOKEN), tokens)[:, 0]
