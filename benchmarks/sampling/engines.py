"""The engines that are compared. Each takes requests and gives their completions by key.

No text is decoded and end of turn ends nothing: a completion is as long as its request's max_tokens.
mlx-lm's sampler cuts before it tempers, so its tokens come from another distribution than ours; the work is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
from mlx_lm import batch_generate
from mlx_lm.generate import BatchGenerator, GenerationBatch, PromptProcessingBatch
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.sample_utils import make_sampler

from benchmarks.sampling.workload import POLICY, SEED
from mlx_ssd.sampling.engine import Decoding, Request

Completions = dict[Any, list[int]]
Engine = Callable[[list[Request]], Completions]

CHUNK = 16
_WORDLESS = SimpleNamespace(eos_token_ids=(), decode=lambda ids: "")  # a tokenizer without end of turn and text


class Ours:
    """Our engine, and the peak memory that it expected of its last run."""

    def __init__(self, model: Any, rows: int, on_step: Callable[[int], None] | None = None):
        self._model, self._rows, self._on_step = model, rows, on_step
        self.expected_peak = 0.0

    def __call__(self, requests: list[Request]) -> Completions:
        decoding = Decoding(self._model, requests, (), self._rows)
        completions = {done.key: done.completion_ids for done in decoding.run(self._on_step)}
        self.expected_peak = decoding.expected_peak
        return completions


def mlx_lm(model: Any, rows: int) -> Engine:
    """mlx_lm.batch_generate: continuous batching, everything returned at the end."""

    def run(requests: list[Request]) -> Completions:
        response = batch_generate(
            model,
            _WORDLESS,
            [request.prompt_ids for request in requests],
            max_tokens=[request.max_tokens for request in requests],
            return_token_ids=True,
            sampler=seeded_sampler(),
            completion_batch_size=rows,
        )
        return {request.key: ids for request, ids in zip(requests, response.token_ids, strict=True)}

    return run


def chunk_and_drain(model: Any) -> Engine:
    """What other ports of the method do: mlx-lm's BatchGenerator on one chunk of prompts after the other,
    each run until its last completion has ended."""

    def run(requests: list[Request]) -> Completions:
        sampler = seeded_sampler()
        completions: Completions = {}
        for start in range(0, len(requests), CHUNK):
            chunk = requests[start : start + CHUNK]
            generator = BatchGenerator(
                model, sampler=sampler, completion_batch_size=CHUNK, prefill_batch_size=CHUNK
            )
            prompts = [request.prompt_ids for request in chunk]
            uids = generator.insert(prompts, [request.max_tokens for request in chunk])
            keys = {uid: request.key for uid, request in zip(uids, chunk, strict=True)}
            while responses := generator.next_generated():
                for response in responses:
                    completions.setdefault(keys[response.uid], []).append(response.token)
            generator.close()
        return completions

    return run


def mlx_lm_side_by_side(model: Any, on_step: Callable[[int], None]) -> Engine:
    """mlx-lm's decoding steps of requests that all begin at once, as batch_generate would run them.

    Equal prompts that stand side by side are run once: what comes before the first step is not measured with it.
    """

    def run(requests: list[Request]) -> Completions:
        prompts: list[list[int]] = []
        row_of = []
        for request in requests:
            if not prompts or prompts[-1] != request.prompt_ids:
                prompts.append(request.prompt_ids)
            row_of.append(len(prompts) - 1)
        count = len(prompts)
        batch = PromptProcessingBatch(
            model,
            list(range(count)),
            [make_prompt_cache(model) for _ in prompts],
            samplers=[seeded_sampler()] * count,
            logits_processors=[[]] * count,
        )
        batch.prompt([prompt[:-1] for prompt in prompts])
        batch.filter(row_of)
        batch.uids = [request.key for request in requests]
        batch.tokens = [[] for _ in requests]
        batch.max_tokens = [request.max_tokens for request in requests]
        return _steps(batch.generate([request.prompt_ids[-1:] for request in requests]), on_step)

    return run


def _steps(batch: GenerationBatch, on_step: Callable[[int], None]) -> Completions:
    completions: Completions = {}
    while responses := batch.next():
        for response in responses:
            completions.setdefault(response.uid, []).append(response.token)
        on_step(len(responses))
    return completions


def seeded_sampler() -> Callable[[mx.array], mx.array]:
    """mlx-lm's sampler with POLICY's numbers; it draws from MLX's global generator, which is set back."""
    mx.random.seed(SEED)
    return make_sampler(temp=POLICY.temperature, top_k=POLICY.top_k, top_p=POLICY.top_p)


def check(requests: Iterable[Request], completions: Completions, vocabulary: int) -> None:
    """Raises AssertionError unless every request got all of its tokens, and all are in the vocabulary."""
    for request in requests:
        ids = completions[request.key]
        if len(ids) != request.max_tokens or not all(0 <= id_ < vocabulary for id_ in ids):
            raise AssertionError(f"request {request.key}: {len(ids)} of {request.max_tokens} tokens, or a false id")
