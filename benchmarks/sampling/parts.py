"""What one decoding step costs and where: each part alone, milliseconds of processor time, the least of ten.

Processor time because other work on the machine moves it less than the clock's; on a GPU it says nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.base import scaled_dot_product_attention
from mlx_lm.models.cache import BatchKVCache

from benchmarks.sampling.engines import seeded_sampler
from benchmarks.sampling.workload import POLICY
from mlx_ssd.decoding.policy import DecodingPolicy, StagedPolicy
from mlx_ssd.decoding.policy_mlx import make_row_sampler
from mlx_ssd.training.forward import output_head

TEN = [DecodingPolicy(t, 20, 0.8) for t in (0.6, 0.8, 1.0, 1.2, 1.4, 1.6)]
TEN += [DecodingPolicy(0.0), DecodingPolicy(1.0)]  # greedy; every token
TEN += [StagedPolicy(POLICY, DecodingPolicy(t, 10, 0.9)) for t in (0.7, 1.0)]

MEANING = {
    "forward": "the model on one token a row, over mlx-lm's cache",
    "linear": "of it: linear layers and the output head",
    "attention": "of it: scaled dot products over the cache",
    "cache_update": "of it: writing new keys and values",
    "graph": "of it: Python, nothing computed",
    "draw": "our sampler, one policy",
    "draw_of_ten_policies": "our sampler, ten policies over the rows",
    "mlx_lm_draw": "mlx-lm: log-softmax, an array a row, make_sampler",
    "cache_copy": "every row's keys and values copied, as mlx-lm does when one ends",
}


def parts(model: Any, rows: int, positions: int) -> dict[str, float]:
    """Milliseconds of each of MEANING, for `rows` rows with `positions` tokens in the cache.

    The model is a decoder of linear layers, dense or quantized; experts are not counted in `linear`.
    """
    random = np.random.default_rng(0)
    caches = [BatchKVCache([0]) for _ in model.layers]
    vocabulary = model(mx.array([[0] * positions]), cache=caches).shape[-1]
    for cache in caches:
        cache.filter([0] * rows)
    tokens = mx.array(random.integers(0, vocabulary, (rows, 1)))

    def forward() -> mx.array:
        logits = model(tokens, cache=caches)[:, -1]
        for cache in caches:
            cache.trim(1)
        return logits

    logits = forward()
    dtype = logits.dtype
    linear = _linear_layers(model)
    inputs = {width: mx.random.normal((rows, 1, width), dtype=dtype) for _, width in linear}
    hidden, head = mx.random.normal((rows, 1, model.args.hidden_size), dtype=dtype), output_head(model).of(model)

    def multiply() -> list[mx.array]:
        return [layer(inputs[width]) for layer, width in linear] + [head(hidden)]

    queries = mx.random.normal((rows, model.args.num_attention_heads, 1, caches[0].keys.shape[-1]), dtype=dtype)
    mask = mx.ones((rows, 1, 1, positions), dtype=mx.bool_)

    def attend() -> list[mx.array]:
        scale = queries.shape[-1] ** -0.5
        return [
            scaled_dot_product_attention(queries, *cache.keys_and_values(), cache=cache, scale=scale, mask=mask)
            for cache in caches
        ]

    new = [mx.random.normal((*cache.keys.shape[:2], 1, cache.keys.shape[-1]), dtype=dtype) for cache in caches]

    def update() -> list[mx.array]:
        for cache, array in zip(caches, new, strict=True):
            cache.update_and_fetch(array, array)
            cache.trim(1)
        return [array for cache in caches for array in (cache.keys, cache.values)]

    u32 = mx.array(random.integers(0, 2**32, rows).astype(np.uint32))
    one, ten = (
        make_row_sampler([policies[i % len(policies)] for i in range(rows)], vocabulary) for policies in ([POLICY], TEN)
    )
    theirs = seeded_sampler()

    def draw_theirs() -> list[mx.array]:
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        return [theirs(logprobs), *list(logprobs)]

    every_row = mx.arange(rows)

    def copy() -> list[mx.array]:
        return [array[every_row] for cache in caches for array in (cache.keys, cache.values)]

    mx.eval(logits, inputs, hidden, queries, mask, new, u32)
    return {
        "forward": _least(forward),
        "linear": _least(multiply),
        "attention": _least(attend),
        "cache_update": _least(update),
        "graph": _least(forward, evaluate=False),
        "draw": _least(lambda: one(logits, u32)),
        "draw_of_ten_policies": _least(lambda: ten(logits, u32)),
        "mlx_lm_draw": _least(draw_theirs),
        "cache_copy": _least(copy),
    }


def _linear_layers(model: Any) -> list[tuple[nn.Module, int]]:
    """(layer, width of its input)."""
    found = []
    for block in model.layers:
        for _, module in block.named_modules():
            if isinstance(module, nn.Linear):
                found.append((module, module.weight.shape[-1]))
            elif isinstance(module, nn.QuantizedLinear):
                found.append((module, module.scales.shape[-1] * module.group_size))
    return found


def _least(work: Callable[[], Any], evaluate: bool = True) -> float:
    found = []
    for _ in range(10):
        started = time.process_time()
        result = work()
        if evaluate:
            mx.eval(result)
        found.append(time.process_time() - started)
        mx.eval(result)
    return round(1000 * min(found), 2)
