"""Attention a block of queries at a time: the square of a sample's length never exists, forward or backward.

MLX has no fused attention for training on Metal (ScaledDotProductAttention::use_fallback in its source: "It's faster
for training on Metal to use the unfused SDPA") or on a CPU. It writes out the scores of every head and keeps them for
the backward pass: 2 GB a layer for 8,192 tokens and 16 heads in 16 bits. Here only those of one block exist, and the
backward pass computes them again (Rabe and Staats, arXiv 2112.05682; Dao et al., arXiv 2205.14135, algorithm 4). A
block looks at the keys up to its own end only, on average at half of the square: that pays for computing them twice.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from mlx_ssd.attention import plain_attention
from mlx_ssd.budget.training import BLOCK


def blockwise_attention(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    scale: float,
    mask: str | mx.array,
    sinks: mx.array | None = None,
    block: int = BLOCK,
) -> mx.array:
    """What mlx-lm's `scaled_dot_product_attention` gives for a sample from its beginning, [B, H, L, D].

    keys, values: [B, G, L, D], each for H / G heads. mask: "causal", or booleans [L, L] that are nowhere wider than
    that (a sliding window). sinks: [H], a logit a head that only takes weight away (gpt-oss): as of a key whose value
    is zero.
    """
    length = queries.shape[2]
    spans = [(start, min(start + block, length)) for start in range(0, length, block)]

    def seen(start: int, end: int) -> str | mx.array:
        return mask if isinstance(mask, str) else mask[start:end, :end]

    @mx.custom_function
    def attention(queries: mx.array, keys: mx.array, values: mx.array, *sinks: mx.array) -> mx.array:
        found: list[mx.array] = []
        for start, end in spans:
            part = _after(queries[:, :, start:end], found[-1:])
            # Causal queries are the last ones of the keys that are given.
            found.append(
                plain_attention(
                    part, keys[:, :, :end], values[:, :, :end], None, scale, seen(start, end), next(iter(sinks), None)
                )
            )
        return mx.concatenate(found, axis=2)

    @attention.vjp
    def _(primals: Any, cotangent: mx.array, output: mx.array) -> tuple[mx.array, ...]:
        queries, keys, values, *sinks = primals
        of_queries: list[mx.array] = []
        of_sinks: list[mx.array] = []
        of_keys, of_values = _Prefixes(), _Prefixes()
        for start, end in reversed(spans):
            part = _after(queries[:, :, start:end], [*of_queries[-1:], *of_keys.parts, *of_values.parts])
            part, of_output, was = (
                _by_group(array, keys.shape[1])
                for array in (part * scale, cotangent[:, :, start:end], output[:, :, start:end])
            )
            scores = part @ keys[:, :, :end].swapaxes(-1, -2)
            weights, of_sink = _softmax(scores, seen(start, end), end - start, *sinks)
            of_weights = of_output @ values[:, :, :end].swapaxes(-1, -2)
            along = (of_output * was).astype(mx.float32).sum(axis=-1, keepdims=True)
            of_scores = weights * (of_weights - along.astype(part.dtype))
            if sinks:
                of_sinks.append(-(of_sink * along.reshape(*of_sink.shape)).sum(axis=(0, 3, 4)).reshape(-1))
            of_queries.append((of_scores @ keys[:, :, :end] * scale).reshape(*queries.shape[:2], end - start, -1))
            of_keys.add(of_scores.swapaxes(-1, -2) @ part)
            of_values.add(weights.swapaxes(-1, -2) @ of_output)
        return (
            mx.concatenate(of_queries[::-1], axis=2),
            of_keys.sum().astype(keys.dtype),
            of_values.sum().astype(values.dtype),
            *(sum(of_sinks).astype(array.dtype) for array in sinks),
        )

    return attention(queries, keys, values, *([] if sinks is None else [sinks]))


def _softmax(
    scores: mx.array, mask: str | mx.array, block: int, sinks: mx.array | None = None
) -> tuple[mx.array, mx.array | None]:
    """Over the keys, the last axis of [B, G, H / G x block, keys]; and the sinks' share, [B, G, H / G, block, 1]."""
    count = scores.shape[-1]
    if isinstance(mask, str):
        mask = mx.arange(count) <= mx.arange(count - block, count)[:, None]
    by_head = mx.where(mask, scores.reshape(*scores.shape[:2], -1, block, count), -mx.inf)
    if sinks is None:
        return mx.softmax(by_head, axis=-1, precise=True).reshape(scores.shape), None
    shape = (*by_head.shape[:-1], 1)
    of_sinks = mx.broadcast_to(sinks.astype(scores.dtype).reshape(1, *shape[1:3], 1, 1), shape)
    weights = mx.softmax(mx.concatenate([by_head, of_sinks], axis=-1), axis=-1, precise=True)
    return weights[..., :count].reshape(scores.shape), weights[..., count:].astype(mx.float32)


def _by_group(array: mx.array, groups: int) -> mx.array:
    """[B, H, L, D] with the heads that share their keys one below the other, [B, G, H / G x L, D]."""
    return array.reshape(array.shape[0], groups, -1, array.shape[-1])


def _after(array: mx.array, before: list[mx.array]) -> mx.array:
    """`array`, but not before `before` is there: MLX would have several blocks in hand."""
    return mx.depends(array, before) if before else array


class _Prefixes:
    """A sum of arrays [..., n, D] over the first n of their third axis, in float32; n falls from one to the next."""

    def __init__(self) -> None:
        self.parts: list[mx.array] = []  # from the end; only to the last, the beginning, may something be added

    def add(self, part: mx.array) -> None:
        part = part.astype(mx.float32)
        if self.parts:
            n, last = part.shape[2], self.parts.pop()
            self.parts.append(last[:, :, n:])
            part = part + last[:, :, :n]
        self.parts.append(part)

    def sum(self) -> mx.array:
        return mx.concatenate(self.parts[::-1], axis=2)
