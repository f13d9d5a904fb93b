"""Samples side by side in one row, each attending to itself alone.

One causal attention call a sample: a mask array over the whole row costs the square of its length, in time and memory
(8 times as much for 16 samples in 4,096 tokens). Positions run on: rotary embeddings are relative, so that nothing but
rounding depends on where in the row a sample stands.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache
from mlx_lm.models.rope_utils import DynamicNTKScalingRoPE

from mlx_ssd.attention import attention_through, plain_attention
from mlx_ssd.budget.training import BLOCK
from mlx_ssd.training.blockwise import blockwise_attention
from mlx_ssd.training.modes import without_dropout


def apart(documents: Sequence[int]) -> contextlib.AbstractContextManager[None]:
    """Within it, a model called on one row without a cache attends within each document, blockwise where it is long.

    documents: their lengths, one behind the other in the row; () where each row of a batch is one.
    """
    spans = list(pairwise(accumulate(documents, initial=0)))

    def attend(queries, keys, values, cache, scale, mask, sinks=None):
        total = spans[-1][1] if spans else keys.shape[2]
        if queries.shape[2] != total or keys.shape[2] != total:
            raise ValueError(f"{keys.shape[2]} keys in a row of {total} tokens: attention across documents")
        found = [
            _attend(
                *(array[:, :, start:end] for array in (queries, keys, values)),
                scale,
                # An array is the window of sliding attention, which is relative too.
                mask[..., start:end, start:end] if isinstance(mask, mx.array) else mask,
                sinks,
            )
            for start, end in spans or [(0, total)]
        ]
        return mx.concatenate(found, axis=2)

    return attention_through(attend)


def _attend(queries, keys, values, scale, mask, sinks):
    windowed = isinstance(mask, mx.array) and mask.ndim == 2 and mask.dtype == mx.bool_
    if queries.shape[2] > BLOCK and (windowed or (isinstance(mask, str) and mask == "causal")):
        return blockwise_attention(queries, keys, values, scale, mask, sinks)
    return plain_attention(queries, keys, values, None, scale=scale, mask=mask, sinks=sinks)


def can_pack(model: nn.Module) -> bool:
    """Whether the model's own code keeps samples in one row apart: tried on two short ones.

    Not so where layers hand a state from token to token (convolutions, linear attention), or where the embedding of
    positions depends on the length of the row.
    """
    if any(type(cache) not in (KVCache, RotatingKVCache) for cache in make_prompt_cache(model)):
        return False
    if any(isinstance(module, DynamicNTKScalingRoPE) for module in model.modules()):
        return False
    first, second = mx.arange(6)[None], mx.arange(2, 11)[None]
    row = mx.concatenate([first, second], axis=1)
    with without_dropout(model):
        try:
            with apart((first.shape[1], second.shape[1])):
                packed = model(row)
                mx.eval(packed)
        except (TypeError, ValueError, AttributeError):
            return False
        return _close(packed, mx.concatenate([model(first), model(second)], axis=1))


def _close(found: Any, expected: mx.array) -> bool:
    tolerance = 1e-3 if expected.dtype == mx.float32 else 0.05
    found, expected = found.astype(mx.float32), expected.astype(mx.float32)
    scale = mx.abs(mx.where(mx.isfinite(expected), expected, 0)).max()
    return bool((mx.isclose(found, expected, rtol=0, atol=tolerance * scale, equal_nan=True)).all().item())
