"""What is measured at every token, from the logits of base and student there (MLX, float32).

The formulas are the paper's (arXiv 2604.01193): kept mass, loss and its split, appendix B.1; gain split, Prop. B.3;
entropy split, Eq. 30. S_s and q_s come from the function that the sampler draws from (`decoding/policy_mlx.support`).

That function's weights are integers: what is 2^41 times less likely than the first is never drawn, so it is not
in S_s either, also where nothing else is cut.

The two sides of an identity are computed each on its own: the whole from sums over the vocabulary, the parts from
sums over S_s and over what is outside it. So their difference says how far the float32 numbers can be trusted.
Sums over a vocabulary go by small blocks: where one token is nearly certain, a float32 sum that holds its 1 loses every
number below 3e-8 that is added. What concerns S_s alone is computed on its candidates, k numbers a position.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from mlx_ssd.analysis.store import RANKS, SIDES, TEMPERATURES, TOP
from mlx_ssd.decoding.draw import Limits, candidates_needed, needs_whole, numbers, support_weights
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.decoding.policy_mlx import support, top_candidates

Terms = dict[str, mx.array]
BLOCK = 16  # numbers that are added one after the other
TINY = 1e-30  # a sum of exponentials below it has lost too many digits


def measure(sampling: DecodingPolicy, evaluation: DecodingPolicy) -> Callable[[mx.array, mx.array, mx.array], Terms]:
    """fn(base logits [n, V], student logits [n, V], tokens int32 [n]) -> the columns of store.COLUMNS but `text` and
    `position`; `mass_by_rank` [n, RANKS], `surviving_by_temperature` and `entropy_by_temperature` [n, G] of each side
    (what store.SUMS sums up); and `broken` bool [n]: a side has no distribution there. Logits float32, natural-log
    units, -inf allowed. Compiled: alike for equal shapes.
    """
    tau = 0.0 if evaluation.greedy else evaluation.temperature

    @mx.compile
    def terms(tokens: mx.array, base: _Whole, student: _Whole) -> Terms:
        tokens = tokens[:, None]
        wholes = zip(SIDES, (base, student), strict=True)
        sides = {name: _Side(_Whole(*whole), tokens, evaluation) for name, whole in wholes}
        ids, weights, broken = _support(sampling, sides["base"])
        inside = weights > 0
        q = weights.astype(mx.float32) / weights.sum(axis=-1, keepdims=True).astype(mx.float32)
        target = _Target(ids, inside, q, 1.0 if sampling.greedy else sampling.temperature)
        found = {"token": tokens[:, 0], "support": inside.sum(axis=-1), "target_entropy": target.entropy()}
        for name, side in sides.items():
            split = _Split(side, target)
            of_side = side.of_token() | split.entropies() | split.losses() | side.decoded(evaluation)
            found |= {f"{name}.{key}": value for key, value in of_side.items()}
            broken = broken | ~mx.isfinite(side.whole.top)
        found |= _gains(sides["base"], sides["student"], target, tau)
        return found | {"broken": broken[:, 0]}

    return lambda base, student, tokens: terms(tokens, _whole(base, tau), _whole(student, tau))


class _Whole(NamedTuple):
    """What is as wide as the vocabulary, of one model at n positions.

    y: logits less the largest, at most 0; e: exp(y); tempered: exp(y / tau), of the evaluation's temperature.
    """

    logits: mx.array
    top: mx.array  # [n, 1], the largest logit
    y: mx.array
    e: mx.array
    tempered: mx.array


def _whole(logits: mx.array, tau: float) -> _Whole:
    top = logits.max(axis=-1, keepdims=True)
    y = logits - top
    e = _exponential(y)
    return _Whole(logits, top, y, e, e if tau in (0, 1) else _exponential(y / tau))


def _exponential(y: mx.array) -> mx.array:
    """On a CPU by numpy, whose exp is vectorised: MLX's takes several times as long."""
    return mx.exp(y) if mx.default_device() == mx.gpu else mx.array(np.exp(np.asarray(y)))


class _Side:
    """One model at n positions, and the tokens [n, 1] that the text has there. z [n, 1]: the sum of e.

    values, ids [n, m]: its likeliest tokens, descending, ties by the lower id.
    """

    def __init__(self, whole: _Whole, tokens: mx.array, evaluation: DecodingPolicy):
        self.whole, self.tokens, self.z = whole, tokens, _sums(whole.e)
        vocabulary = whole.logits.shape[-1]
        needed = candidates_needed(evaluation, vocabulary)
        ranked = max(RANKS, TOP, needed if needed < vocabulary else 0)
        self.values, self.ids = top_candidates(whole.logits, min(ranked, vocabulary))

    def of_token(self) -> Terms:
        """Of the token in the text, and of the likeliest tokens."""
        vocabulary = self.whole.logits.shape[-1]
        value = mx.take_along_axis(self.whole.logits, self.tokens, axis=-1)
        ahead = (self.whole.logits > value) | ((self.whole.logits == value) & (mx.arange(vocabulary) < self.tokens))
        likeliest = mx.exp(self.values - self.whole.top) / self.z
        return {
            "rank": ahead.astype(mx.int32).sum(axis=-1),
            "probability": (mx.exp(value - self.whole.top) / self.z)[:, 0],
            "top_ids": _padded(self.ids[:, :TOP].astype(mx.int32), TOP, -1),
            "top_probabilities": _padded(likeliest[:, :TOP], TOP, 0),
            "mass_by_rank": mx.minimum(mx.cumsum(_padded(likeliest[:, :RANKS], RANKS, 0), axis=-1), 1),
        }

    def decoded(self, evaluation: DecodingPolicy) -> Terms:
        """What evaluation leaves of it: at its own temperature, and at those of the grid."""
        _, weights, _ = _support(evaluation, self)
        found = {"surviving": (weights > 0).sum(axis=-1)}
        grid = [replace(evaluation, temperature=temperature) for temperature in TEMPERATURES]
        if _few(grid[0], self):
            # All temperatures at once: the candidates are the same, for tempering does not reorder.
            limits, scale = numbers(grid)
            limits = [Limits(*map(mx.array, stage)) for stage in limits]
            values = self.values[:, None, : candidates_needed(grid[0], self.whole.logits.shape[-1])]
            weights, _ = support_weights(mx, limits, mx.array(scale), values)
            counts, entropies = _spread(weights)
        else:
            spread = [_spread(_support(policy, self)[1]) for policy in grid]
            counts, entropies = (mx.stack(list(parts), axis=-1) for parts in zip(*spread, strict=True))
        return found | {"surviving_by_temperature": counts, "entropy_by_temperature": entropies}


def _few(policy: DecodingPolicy, side: _Side) -> bool:
    """Whether the side's likeliest tokens hold all that the policy can leave."""
    vocabulary = side.whole.logits.shape[-1]
    return candidates_needed(policy, vocabulary) <= side.values.shape[-1] and not needs_whole(policy)


def _support(policy: DecodingPolicy, side: _Side) -> tuple[mx.array, mx.array, mx.array]:
    """`support` of the side's logits; on its likeliest tokens where these will do: they are ranked already."""
    if not _few(policy, side):
        return support(policy, side.whole.logits)
    needed = candidates_needed(policy, side.whole.logits.shape[-1])
    chosen, weights, broken = support(policy, side.values[:, :needed])
    return mx.take_along_axis(side.ids[:, :needed], chosen, axis=-1), weights, broken


def _spread(weights: mx.array) -> tuple[mx.array, mx.array]:
    """Of integer weights [..., k]: how many are not 0, and the entropy of their shares in nats."""
    shares = weights.astype(mx.float32) / weights.sum(axis=-1, keepdims=True).astype(mx.float32)
    return (weights > 0).astype(mx.float32).sum(axis=-1), -_sums(_xlogx(shares))[..., 0]


class _Target(NamedTuple):
    """q_s on candidates [n, k]: the base's own distribution, tempered by T, on S_s. q is 0 outside S_s."""

    ids: mx.array
    inside: mx.array
    q: mx.array
    temperature: float

    def entropy(self) -> mx.array:
        """T H(q_s), what no student can be without."""
        return -self.temperature * _sums(_xlogx(self.q))[:, 0]

    def within(self, side: _Side) -> mx.array:
        """The side's y on the candidates, -inf outside S_s."""
        return mx.where(self.inside, mx.take_along_axis(side.whole.y, self.ids, axis=-1), -mx.inf)

    def without(self, side: _Side, e: mx.array) -> mx.array:
        """e, which is over the vocabulary, with 0 on S_s."""
        there = mx.take_along_axis(e, self.ids, axis=-1)
        return mx.put_along_axis(e, self.ids, mx.where(self.inside, 0, there), axis=-1)


class _Split:
    """A side parted into what is in S_s and what is outside."""

    def __init__(self, side: _Side, target: _Target):
        self.side, self.target = side, target
        self.y = target.within(side)
        self.lse = _logsumexp(self.y)  # of S_s, [n, 1]
        self.e = mx.exp(self.y)
        self.sum = _sums(self.e)
        outside = target.without(side, side.whole.e)
        self.outer_sum = _sums(outside)
        self.outer_ey = _sums(_product(outside, side.whole.y))
        self.total = self.sum + self.outer_sum
        self.kept = self.sum / self.total
        # 0 in float32 where the student has next to nothing on S_s: then from logarithms.
        self.compression = mx.where(
            self.sum > TINY, mx.log1p(self.outer_sum / self.sum), mx.log(side.z) - self.lse
        )

    def entropies(self) -> Terms:
        """H = gate + head + tail (Eq. 30)."""
        side, outer = self.side, self.outer_sum
        log_z = mx.log(side.z)
        gate = self.kept * self.compression + mx.where(outer > 0, outer / self.total * mx.log(self.total / outer), 0)
        head = _sums(_product(self.e, self.lse - self.y)) / self.total
        tail = mx.where(outer > 0, outer * mx.log(outer) - self.outer_ey, 0) / self.total
        found = {
            "kept_mass": self.kept,
            "entropy": log_z - _sums(_product(side.whole.e, side.whole.y)) / side.z,
            "gate": mx.where(self.sum > 0, gate, 0),
            "head": head,
            "tail": tail,
        }
        return {name: value[:, 0] for name, value in found.items()}

    def losses(self) -> Terms:
        """loss = compression + conditional; conditional = reshaping + anchor + T H(q_s) (appendix B.1)."""
        q, temperature = self.target.q, self.target.temperature
        within = self.y - self.lse  # log of the side's distribution within S_s
        tempered = within / temperature
        lse = _logsumexp(tempered)
        found = {
            "loss": _sums(_product(q, mx.log(self.side.z) - self.y)),
            "compression": self.compression,
            "conditional": -_sums(_product(q, within)),
            "reshaping": -temperature * lse,  # (1 - T) H_{1/T}, in the form that holds at T = 1 too
            "anchor": temperature * _sums(_product(q, mx.log(q) - (tempered - lse))),
        }
        return {name: value[:, 0] for name, value in found.items()}


def _gains(base: _Side, student: _Side, target: _Target, tau: float) -> Terms:
    """Prop. B.3 for the event that the base's likeliest token is drawn, at the evaluation's temperature without its
    truncation: logs of the ratio to the base's probability. nan under greedy decoding: the base's is 1 then."""
    if not tau:
        nothing = mx.full(base.whole.top.shape[:1], mx.nan)
        return {f"gain.{name}": nothing for name in ("compression", "reshaping", "ideal", "student")}
    first, temperature = base.ids[:, :1], target.temperature
    e, z = base.whole.tempered, _sums(base.whole.tempered)
    within = target.within(base)  # 0 at the likeliest token
    kept, outside = _sums(mx.exp(within / tau)), _sums(target.without(base, e))
    # The ideal student is q_s; tempered by tau, in two steps where `reshaping` takes one (Lemma B.1).
    ideal = within / temperature - _logsumexp(within / temperature)
    ideal = -(_logsumexp(ideal / tau) - ideal.max(axis=-1, keepdims=True) / tau)
    students = _sums(student.whole.tempered)
    found = {
        "compression": mx.log1p(outside / kept),
        "reshaping": _logsumexp(within / tau) - _logsumexp(within / (temperature * tau)),
        "ideal": ideal + mx.log(z),
        "student": mx.take_along_axis(student.whole.y, first, axis=-1) / tau - mx.log(students) + mx.log(z),
    }
    return {f"gain.{name}": value[:, 0] for name, value in found.items()}


def _sums(values: mx.array) -> mx.array:
    """Over the last axis, which stays with length 1: of blocks, then of their sums, and so on.

    As training/sums.py, in smaller blocks: with 256 the identities are off by up to 1e-5 at locks of the quickstart,
    with 16 by 1e-6 (`residuals` of `mlx-ssd analyze RUN --json`).
    """
    while (length := values.shape[-1]) > BLOCK:
        whole = length - length % BLOCK
        # Numbers of one block stand apart: on a CPU that is the faster way to add.
        blocks = values[..., :whole].reshape(*values.shape[:-1], BLOCK, whole // BLOCK).sum(axis=-2)
        rest = values[..., whole:]
        values = mx.concatenate([blocks, rest], axis=-1) if whole < length else blocks
    return values.sum(axis=-1, keepdims=True)


def _logsumexp(values: mx.array) -> mx.array:
    """Over the last axis, which stays with length 1; -inf allowed, all of a row too."""
    top = values.max(axis=-1, keepdims=True)
    top = mx.where(mx.isfinite(top), top, 0)
    return top + mx.log(_sums(mx.exp(values - top)))


def _product(weights: mx.array, values: mx.array) -> mx.array:
    """weights * values, 0 where the weight is: a value may be infinite there."""
    return mx.where(weights > 0, weights * values, 0)


def _xlogx(values: mx.array) -> mx.array:
    return _product(values, mx.log(values))


def _padded(values: mx.array, width: int, value: float) -> mx.array:
    """To `width` columns, for a vocabulary of fewer tokens."""
    missing = width - values.shape[-1]
    return mx.pad(values, ((0, 0), (0, missing)), constant_values=value) if missing > 0 else values
