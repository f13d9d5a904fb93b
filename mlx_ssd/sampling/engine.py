"""Batched generation behind a seam: requests in, completions out in the order they finish.

On the two halves of mlx-lm's BatchGenerator (prompt batch and generation batch, continuous batching)
rather than on BatchGenerator itself, for two reasons. Its samplers truncate before they temper and draw
from one global random state, so that a sample would depend on its batch mates; and a sampler is told
neither which row it serves nor its position, so that a draw per row would cost a Python call per row.
Here the loop knows the rows before each step, and one call draws for all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.generate import GenerationBatch, PromptProcessingBatch, StopSequences, generation_stream, wired_limit
from mlx_lm.models.cache import make_prompt_cache

from mlx_ssd.decoding.policy_mlx import make_sampler
from mlx_ssd.decoding.rng import uniform_u32
from mlx_ssd.errors import WorkFailed

PREFILL_TOKENS = 2048  # prompt tokens a row in one forward pass
CLEAR_CACHE_STEPS = 512


@dataclass(frozen=True)
class Request:
    key: Any  # the caller's name for it, returned with the completion
    prompt_ids: list[int]
    random_key: tuple[int, int]  # decoding.rng.sample_key
    max_tokens: int


@dataclass(frozen=True)
class Completed:
    key: Any
    completion_ids: list[int]  # with the stop token, when one was drawn
    finish_reason: str  # "stop" or "length"


class _Row:
    """A request being decoded: its uniforms, one a position, and the tokens so far."""

    def __init__(self, request: Request):
        self.request = request
        self.tokens: list[int] = []
        # One more than tokens: mlx-lm works one step ahead.
        self._uniforms = iter(uniform_u32(request.random_key, np.arange(request.max_tokens + 1)))

    def next_uniform(self) -> np.uint32:
        return next(self._uniforms)


class _Draws:
    """The sampler of every batch: `rows` must stand in the order of the batch that is about to step."""

    def __init__(self, policy: Any):
        self._draw = mx.compile(make_sampler(policy))
        self.rows: list[_Row] = []

    def __call__(self, logprobs: mx.array) -> mx.array:
        """logprobs [rows, vocabulary] -> tokens [rows]; only differences of a row's logprobs matter."""
        uniforms = mx.array(np.array([row.next_uniform() for row in self.rows], dtype=np.uint32))
        # A row without a distribution draws no token (NO_TOKEN); the model must not look that up.
        return mx.minimum(self._draw(logprobs, uniforms), logprobs.shape[-1] - 1)


def generate(
    model: Any,
    requests: Iterable[Request],
    policy: Any,
    stop_tokens: Iterable[int],
    rows: int,
    on_tokens: Callable[[int], None] | None = None,
) -> Iterator[Completed]:
    """Decode `rows` requests side by side; each is yielded the step it ends and its row soon given to another.

    A completion is a function of the model, the prompt, the policy and the request's random key alone:
    not of batch mates, their number or order, except through kernel rounding (rule 3 in docs/method.md).
    `on_tokens` is called after each step with the number of tokens it drew. Raises WorkFailed when the
    model's output is not finite.
    """
    draws = _Draws(policy)
    stops = StopSequences([[token] for token in stop_tokens])
    running = GenerationBatch.empty(model, draws)
    waiting = deque(requests)
    row_of: dict[int, _Row] = {}
    admitted = steps = 0
    refill = max(1, rows // 8)  # one prompt at a time would stop all other rows at each row's end
    with wired_limit(model, [generation_stream]):
        while waiting or running.uids:
            free = rows - len(running.uids)
            if waiting and (free >= refill or not running.uids):
                new = [_Row(waiting.popleft()) for _ in range(min(free, len(waiting)))]
                uids = list(range(admitted, admitted + len(new)))
                admitted += len(new)
                row_of |= dict(zip(uids, new, strict=True))
                draws.rows = new
                with mx.stream(generation_stream):
                    running.extend(_prefill(model, uids, new, draws, stops))
            draws.rows = [row_of[uid] for uid in running.uids]
            with mx.stream(generation_stream):
                responses = running.next()
            for response in responses:
                row = row_of[response.uid]
                row.tokens.append(response.token)
                if response.finish_reason is not None:
                    del row_of[response.uid]
                    _check_finite(response.logprobs, row.request)
                    yield Completed(row.request.key, row.tokens, response.finish_reason)
            if on_tokens:
                on_tokens(len(responses))
            steps += 1
            if steps % CLEAR_CACHE_STEPS == 0:
                mx.clear_cache()


def _prefill(model: Any, uids: list[int], rows: list[_Row], draws: _Draws, stops: StopSequences) -> GenerationBatch:
    """Run the prompts and draw each row's first token."""
    batch = PromptProcessingBatch(
        model,
        uids,
        [make_prompt_cache(model) for _ in rows],
        prefill_step_size=PREFILL_TOKENS,
        samplers=[draws] * len(rows),  # one object: mlx-lm then makes one call for all rows
        logits_processors=[()] * len(rows),
        stop_sequences=[stops] * len(rows),
        max_tokens=[row.request.max_tokens for row in rows],
    )
    return batch.generate([row.request.prompt_ids for row in rows])


def _check_finite(logprobs: mx.array, request: Request) -> None:
    """A number that is not finite stays in the row's cache, so the row's last token shows it."""
    if not mx.isfinite(logprobs.max()).item():
        raise WorkFailed(
            f"the model's output for {request.key} is not finite: its weights are damaged, "
            "or model.dtype is too narrow for it (try float32)"
        )
