"""One repetition: mlx-lm generates, as it does in an app, and each token is timed as it comes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm import stream_generate
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import make_prompt_cache

from mlx_ssd.bench.configurations import Load
from mlx_ssd.errors import WorkFailed

SEED = 0


@dataclass(frozen=True)
class Repetition:
    """ttft: seconds from the call to the first token, of a batch to the first of every sequence. steps: seconds from
    each token, or row of them, to the next. kv_bytes: keys, values and states of all sequences, as far as they are
    filled, at the end. steady_bytes: what MLX holds before the last step, weights and whole buffers of the cache."""

    ttft: float
    steps: list[float]
    kv_bytes: int
    steady_bytes: int


def prompts_of(load: Load, vocabulary: int) -> list[list[int]]:
    """Random tokens, as mlx_lm's own benchmark takes: what is computed does not depend on them."""
    mx.random.seed(SEED)
    return mx.random.randint(0, vocabulary, (load.batch, load.prompt)).tolist()


def generate(model: nn.Module, tokenizer: Any, prompts: list[list[int]], count: int) -> Repetition:
    """`count` tokens for each prompt, greedily. Nothing ends before: the caller has taken the tokenizer's end-of-turn
    tokens away. Raises WorkFailed where it does end."""
    if len(prompts) == 1:
        return _one(model, tokenizer, prompts[0], count)
    return _side_by_side(model, tokenizer, prompts, count)


def _one(model: nn.Module, tokenizer: Any, prompt: list[int], count: int) -> Repetition:
    cache = make_prompt_cache(model)
    times, steady = [time.perf_counter()], 0
    for _ in stream_generate(model, tokenizer, prompt, max_tokens=count, prompt_cache=cache):
        times.append(time.perf_counter())
        if len(times) == count:
            steady = mx.get_active_memory()
    return _repetition(times, count, filled_bytes(cache), steady)


def _side_by_side(model: nn.Module, tokenizer: Any, prompts: list[list[int]], count: int) -> Repetition:
    """As mlx_lm.batch_generate does it, which keeps no times."""
    stop = [[token] for token in tokenizer.eos_token_ids]
    rows = len(prompts)
    generator = BatchGenerator(model, stop_tokens=stop, completion_batch_size=rows, prefill_batch_size=rows)
    generator.insert(prompts, [count] * rows)
    times, kv_bytes, steady = [time.perf_counter()], 0, 0
    while responses := generator.next_generated():
        times.append(time.perf_counter())
        if len(times) == count:
            steady = mx.get_active_memory()
        if len(responses) != rows:
            raise WorkFailed(f"{len(responses)} of {rows} sequences took part in a step; this is a defect")
        kv_bytes = sum(filled_bytes(response.prompt_cache or []) for response in responses)
    generator.close()
    return _repetition(times, count, kv_bytes, steady)


def _repetition(times: list[float], count: int, kv_bytes: int, steady: int) -> Repetition:
    if len(times) != count + 1:
        raise WorkFailed(f"generation ended after {len(times) - 1} of {count} tokens; this is a defect")
    between = [after - before for before, after in zip(times, times[1:], strict=False)]
    return Repetition(between[0], between[1:], kv_bytes, steady)


def filled_bytes(cache: list[Any]) -> int:
    """Of a prompt cache: its buffers grow by steps of 256 tokens, and what is not filled is not read."""
    return round(sum(layer.nbytes * _share(layer) for layer in cache))


def _share(layer: Any) -> float:
    keys, offset = getattr(layer, "keys", None), getattr(layer, "offset", None)
    if keys is None or not isinstance(offset, int):
        return 1.0
    first = keys[0] if isinstance(keys, (tuple, list)) else keys  # a quantized cache holds three arrays
    return min(1.0, offset / first.shape[-2])
