"""The decoding distribution in MLX: what samples, and what training and analysis take their targets from.

Every row stands alone and nothing is drawn from a global generator, so a row's result does not depend on the
batch. All functions are pure and lazy, and take float32, bfloat16 or float16 logits (weighed in float32).

Metal has what is used here (read in the sources of MLX 0.32): int64 cumsum, sum, shifts and where; uint64
sort, to which it also directs partition; `max` hands nan on (`argmax` skips it, so it is not used). It
compiles without fast mathematics, and the one subtract-then-multiply cannot be fused. Not yet run on a Mac.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

import mlx.core as mx

from mlx_ssd.decoding.draw import (
    NO_TOKEN,
    Limits,
    Policy,
    best_keys,
    candidates_needed,
    first_above,
    from_keys,
    needs_ranking,
    needs_whole,
    numbers,
    order_keys,
    pick,
    scaled,
    support_weights,
    weight_scale,
    weights,
)

BLOCK = 64


def top_candidates(logits: mx.array, count: int) -> tuple[mx.array, mx.array]:
    """The `count` best by (value descending, id ascending): (values float32, ids uint32), [rows, count].

    logits [rows, vocabulary]. Only the `count` blocks with the best (maximum, lower id) need a look: any
    token outside them is beaten by one token in each. nan counts as best, so it is seen.
    """
    rows, vocabulary = logits.shape
    ids = mx.arange(vocabulary, dtype=mx.uint32)
    if 2 * count * BLOCK < vocabulary:
        if vocabulary % BLOCK:
            logits = mx.pad(logits, ((0, 0), (0, -vocabulary % BLOCK)), constant_values=-mx.inf)
        blocks = logits.reshape(rows, -1, BLOCK)
        maxima = blocks.max(axis=-1).astype(mx.float32)
        keys = best_keys(mx, order_keys(mx, maxima, mx.arange(maxima.shape[-1], dtype=mx.uint32)), count)
        _, chosen = from_keys(mx, keys)
        logits = mx.take_along_axis(blocks, chosen[..., None], axis=1).reshape(rows, -1)
        ids = (chosen[..., None] * BLOCK + mx.arange(BLOCK, dtype=mx.uint32)).reshape(rows, -1)
    return from_keys(mx, best_keys(mx, order_keys(mx, logits.astype(mx.float32), ids), count))


def pick_in_blocks(drawn_weights: mx.array, u32: mx.array) -> mx.array:
    """As `pick`; of many weights, first the block is drawn and then the index in it.

    The sums are exact, so the index is the same; no cumulative sum of the whole row is written.
    """
    rows, n = drawn_weights.shape
    if n <= BLOCK * BLOCK:
        return pick(mx, drawn_weights, u32)
    if n % BLOCK:
        drawn_weights = mx.pad(drawn_weights, ((0, 0), (0, -n % BLOCK)))
    blocks = drawn_weights.reshape(rows, -1, BLOCK)
    cumulative = mx.cumsum(blocks.sum(axis=-1), axis=-1)
    threshold = scaled(mx, u32.astype(mx.int64)[:, None], cumulative[:, -1:])
    block = first_above(mx, cumulative, threshold)
    within = mx.cumsum(mx.take_along_axis(blocks, block[..., None], axis=1)[:, 0], axis=-1)
    before = mx.take_along_axis(cumulative, block, axis=-1) - within[:, -1:]
    return block * BLOCK + first_above(mx, within, threshold - before)


class _Form(NamedTuple):
    """What is alike in all rows of one call; the rest of a policy is numbers, which may differ by the row."""

    ranked: bool
    needs_whole: bool
    candidates: int


def _form(policy: Policy, vocabulary: int) -> _Form:
    return _Form(needs_ranking(policy, vocabulary), needs_whole(policy), candidates_needed(policy, vocabulary))


def _support(form: _Form, limits: list[Limits], scale: mx.array, logits: mx.array) -> tuple[mx.array, ...]:
    whole = None
    if form.needs_whole:
        values = logits.astype(mx.float32)
        top = values.max(axis=-1, keepdims=True)
        whole = weights(mx, values, top, weight_scale(1)).sum(axis=-1, keepdims=True)
    if form.ranked:
        values, ids = top_candidates(logits, form.candidates)
    else:
        values = logits.astype(mx.float32)
        ids = mx.broadcast_to(mx.arange(logits.shape[-1], dtype=mx.uint32), logits.shape)
    return ids, *support_weights(mx, limits, scale, values, whole)


def _draw(form: _Form, limits: list[Limits], scale: mx.array, logits: mx.array, u32: mx.array) -> mx.array:
    ids, drawn_weights, broken = _support(form, limits, scale, logits)
    tokens = mx.take_along_axis(ids, pick_in_blocks(drawn_weights, u32), axis=-1)
    return mx.where(broken, mx.array(NO_TOKEN, dtype=mx.uint32), tokens)[:, 0]


def _numbers(policies: Sequence[Policy]) -> tuple[list[Limits], mx.array]:
    limits, scale = numbers(policies)
    return [Limits(*map(mx.array, stage)) for stage in limits], mx.array(scale)


def support(policy: Policy, logits: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """The decoding distribution on candidates: (ids uint32, weights int64, broken bool).

    logits [rows, vocabulary]; ids and weights [rows, n], broken [rows, 1]. Candidates stand in descending
    order, or in order of id where the policy keeps every token; n is top-k, or the vocabulary where there is
    no top-k. Weights and broken rows as in `support_weights`.
    """
    return _support(_form(policy, logits.shape[-1]), *_numbers([policy]), logits)


def make_sampler(policy: Policy) -> Callable[[mx.array, mx.array], mx.array]:
    """fn(logits [rows, vocabulary], u32 uint32 [rows]) -> tokens uint32 [rows]; NO_TOKEN for a broken row."""
    parameters = _numbers([policy])

    def sampler(logits: mx.array, u32: mx.array) -> mx.array:
        return _draw(_form(policy, logits.shape[-1]), *parameters, logits, u32)

    return sampler


@cache
def _compiled_draw(form: _Form) -> Callable[..., mx.array]:
    return mx.compile(partial(_draw, form))


def make_row_sampler(policies: Sequence[Policy], vocabulary: int) -> Callable[[mx.array, mx.array], mx.array]:
    """As `make_sampler`, compiled, with a policy a row: each row as its own policy's sampler would draw it.

    Rows are drawn together where they need the same work: a top-k, all tokens in order, or all in any order,
    each with or without the mass of the whole vocabulary. The largest top-k says how many candidates are ranked.
    """
    groups: dict[tuple[bool, bool, bool], list[int]] = {}
    forms = [_form(policy, vocabulary) for policy in policies]
    for row, form in enumerate(forms):
        kind = (form.ranked, form.needs_whole, form.candidates == vocabulary)
        groups.setdefault(kind, []).append(row)
    calls = []
    for rows in groups.values():
        form = forms[rows[0]]._replace(candidates=max(forms[row].candidates for row in rows))
        parameters = _numbers([policies[row] for row in rows])
        calls.append((mx.array(rows), partial(_compiled_draw(form), *parameters)))
    if len(calls) == 1:
        return calls[0][1]
    back = mx.argsort(mx.concatenate([rows for rows, _ in calls]))

    def sampler(logits: mx.array, u32: mx.array) -> mx.array:
        return mx.concatenate([call(logits[rows], u32[rows]) for rows, call in calls])[back]

    return sampler


def probabilities(policy: Policy, logits: mx.array) -> mx.array:
    """float32 probabilities [rows, vocabulary] of logits [rows, vocabulary]; nan where a row is broken."""
    ids, drawn_weights, broken = support(policy, logits)
    total = drawn_weights.sum(axis=-1, keepdims=True)
    shares = mx.where(broken, mx.nan, drawn_weights.astype(mx.float32) / total.astype(mx.float32))
    return mx.put_along_axis(mx.where(broken, mx.nan, mx.zeros(logits.shape)), ids, shares, axis=-1)
