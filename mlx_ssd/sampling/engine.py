"""Batched generation behind a seam: requests in, completions out in the order they finish.

Prompts go through mlx-lm's PromptProcessingBatch and keys and values live in its caches, which know how to
pad, drop and join rows. The loop over tokens is our own and not mlx-lm's GenerationBatch, because that
- draws through a sampler that is told neither which row it serves nor its position, and whose own samplers
  truncate before they temper and share one global random state: a sample would depend on its batch mates;
- takes the logarithm of a softmax over the vocabulary and cuts it into an array a row, which no draw needs;
- copies the whole cache at each row's end; and runs a prompt again for each of its samples.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.generate import PromptProcessingBatch, wired_limit
from mlx_lm.models.cache import BatchKVCache, make_prompt_cache

from mlx_ssd.decoding.draw import NO_TOKEN, Policy
from mlx_ssd.decoding.policy_mlx import make_row_sampler
from mlx_ssd.decoding.rng import uniform_u32
from mlx_ssd.errors import WorkFailed

PREFILL_TOKENS = 2048  # prompt tokens a row in one forward pass
CLEAR_CACHE_STEPS = 512


@dataclass(frozen=True)
class Request:
    key: Any  # the caller's name for it, returned with the completion
    prompt_ids: list[int]
    policy: Policy
    random_key: tuple[int, int]  # decoding.rng.sample_key
    max_tokens: int


@dataclass(frozen=True)
class Completed:
    key: Any
    completion_ids: list[int]  # with the stop token, when one was drawn
    finish_reason: str  # "stop" or "length"


def generate(
    model: Any,
    requests: Iterable[Request],
    stop_tokens: Iterable[int],
    rows: int,
    on_tokens: Callable[[int], None] | None = None,
) -> Iterator[Completed]:
    """Decode `rows` requests side by side; each is yielded the step it ends and its row soon given to another.

    A completion is a function of the model, the prompt, the policy and the request's random key alone:
    not of batch mates, their number or order, except through kernel rounding (rule 3 in docs/method.md).
    A prompt of consecutive requests is run once for all of them; put requests of one prompt side by side.
    `on_tokens` is called after each step with the number of tokens it drew. Raises WorkFailed when the
    model's output is not finite.
    """
    stops = set(stop_tokens)
    waiting = deque(requests)
    prompts, batch = _Prompts(model), _Batch(model)
    steps = 0
    with wired_limit(model):
        while waiting or batch.alive:
            # Not at each row's end: dropping copies the cache, and new prompts run better together.
            if 8 * (len(batch.rows) - batch.alive) >= len(batch.rows):
                new = [waiting.popleft() for _ in range(min(rows - batch.alive, len(waiting)))]
                if not new:
                    batch.drop_ended()
                else:
                    batch.join([_Row(request) for request in new], *prompts.run(new, waiting[0] if waiting else None))
            drawn = batch.step()
            for row, token in drawn:
                row.tokens.append(token)
                if token in stops or len(row.tokens) == row.request.max_tokens:
                    batch.end(row)
                    yield Completed(row.request.key, row.tokens, "stop" if token in stops else "length")
            if on_tokens:
                on_tokens(len(drawn))
            steps += 1
            if steps % CLEAR_CACHE_STEPS == 0:
                mx.clear_cache()


class _Row:
    """A request being decoded: its uniforms, one a position, and the tokens so far."""

    def __init__(self, request: Request):
        self.request = request
        self.tokens: list[int] = []
        self.ended = False
        # One more than tokens: the batch works one step ahead.
        self._uniforms = iter(uniform_u32(request.random_key, np.arange(request.max_tokens + 1)))

    def next_uniform(self) -> np.uint32:
        return np.uint32(0) if self.ended else next(self._uniforms)


class _Batch:
    """Rows decoded side by side, one step ahead of what is read. An ended row idles until it is dropped."""

    def __init__(self, model: Any):
        self._model = model
        self._cache: list[Any] = []
        self._tokens = mx.array([], dtype=mx.uint32)  # drawn for each row, not read yet
        self._draw: Callable[..., mx.array] | None = None  # of these rows
        self.rows: list[_Row] = []
        self.alive = 0

    def join(self, rows: list[_Row], cache: list[Any], logits: mx.array) -> None:
        """Add rows whose prompts are in `cache`; their first tokens are drawn from logits [rows, vocabulary]."""
        first = _row_sampler(rows, logits)(logits, _uniforms(rows))
        places = [i for i, row in enumerate(self.rows) if row.ended][: len(rows)]
        if len(places) == len(rows) and all(map(_fits, self._cache, cache)):
            for layer, its in zip(self._cache, cache, strict=True):
                _put(layer, places, its)
            self._tokens[mx.array(places)] = first
            for place, row in zip(places, rows, strict=True):
                self.rows[place] = row
        else:
            self.drop_ended()
            self._cache = _joined(self._cache, cache)
            self._tokens = mx.concatenate([self._tokens, first])
            self.rows += rows
        self._draw = None
        self.alive += len(rows)

    def step(self) -> list[tuple[_Row, int]]:
        """The next token of each row that has not ended; the one after it begins to be computed."""
        tokens = self._tokens
        inputs = mx.where(tokens == NO_TOKEN, 0, tokens)  # the model must not look NO_TOKEN up
        logits = self._model(inputs[:, None], cache=self._cache)[:, -1]
        self._draw = self._draw or _row_sampler(self.rows, logits)
        self._tokens = self._draw(logits, _uniforms(self.rows))
        mx.async_eval(self._tokens)
        drawn = [(row, token) for row, token in zip(self.rows, tokens.tolist(), strict=True) if not row.ended]
        for row, token in drawn:
            if token == NO_TOKEN:
                raise WorkFailed(
                    f"the model's output for {row.request.key} is not finite: its weights are damaged, "
                    "or model.dtype is too narrow for it (try float32)"
                )
        return drawn

    def end(self, row: _Row) -> None:
        row.ended = True
        self.alive -= 1

    def drop_ended(self) -> None:
        keep = [i for i, row in enumerate(self.rows) if not row.ended]
        if len(keep) == len(self.rows):
            return
        self.rows = [self.rows[i] for i in keep]
        self._tokens = self._tokens[mx.array(keep, dtype=mx.uint32)]
        self._draw = None
        if not keep:
            self._cache = []
        for layer in self._cache:
            layer.filter(keep)


class _Prompts:
    """Runs each prompt once for all its requests that stand side by side.

    The last prompt is held until its last request has a row; no other outlives the call that ran it.
    """

    def __init__(self, model: Any):
        self._model = model
        self._held: tuple[list[int], list[Any], mx.array] | None = None

    def run(self, requests: list[Request], following: Request | None) -> tuple[list[Any], mx.array]:
        """(cache, logits [requests, vocabulary] after the prompt), a row a request."""
        prompts: list[list[int]] = []
        row_of = []
        for request in requests:
            if not prompts or request.prompt_ids != prompts[-1]:
                prompts.append(request.prompt_ids)
            row_of.append(len(prompts) - 1)

        if self._held and self._held[0] == prompts[0]:
            _, cache, logits = self._held
            if len(prompts) > 1:
                fresh_cache, fresh_logits = _prefill(self._model, prompts[1:])
                cache, logits = _joined(cache, fresh_cache), mx.concatenate([logits, fresh_logits])
        else:
            cache, logits = _prefill(self._model, prompts)

        self._held = None
        if following and following.prompt_ids == prompts[-1]:
            last = copy.deepcopy(cache)
            for layer in last:
                layer.filter([len(prompts) - 1])
            self._held = prompts[-1], last, logits[-1:]
        if len(prompts) < len(requests):
            for layer in cache:
                layer.filter(row_of)  # names a row once for each request: copies it
            logits = logits[mx.array(row_of)]
        return cache, logits


def _prefill(model: Any, prompts: list[list[int]]) -> tuple[list[Any], mx.array]:
    """(cache, logits after the prompt) of a row a prompt."""
    rows = list(range(len(prompts)))
    batch = PromptProcessingBatch(
        model, rows, [make_prompt_cache(model) for _ in rows], prefill_step_size=PREFILL_TOKENS
    )
    # Without the last token: for the others mlx-lm computes no logits.
    if any(len(prompt) > 1 for prompt in prompts):
        batch.prompt([prompt[:-1] for prompt in prompts])
    last = mx.array([prompt[-1:] for prompt in prompts])
    return batch.prompt_cache, model(last, cache=batch.prompt_cache)[:, -1]


def _joined(cache: list[Any], other: list[Any]) -> list[Any]:
    for layer, its in zip(cache, other, strict=False):
        layer.extend(its)
    return cache or other


def _fits(layer: Any, its: Any) -> bool:
    """Whether `_put` can work: on the common kind of cache, filled at least as far."""
    return type(layer) is type(its) is BatchKVCache and its._idx <= layer._idx


def _put(layer: BatchKVCache, places: list[int], its: BatchKVCache) -> None:
    """Give `places` to the rows of another cache, in place: filter and extend would copy all rows, each once."""
    end = layer._idx
    left = end - its._idx
    at = mx.array(places)
    layer.keys[at, :, left:end] = its.keys[..., : its._idx, :]
    layer.values[at, :, left:end] = its.values[..., : its._idx, :]
    layer.offset[at] = its.offset
    layer.left_padding[at] = its.left_padding + left
    # Rows are aligned at their ends; once the longest have gone, what all rows leave empty is cut off.
    if 8 * layer.left_padding.min().item() > end:
        layer.filter(list(range(layer.left_padding.size)))


def _row_sampler(rows: list[_Row], logits: mx.array) -> Callable[[mx.array, mx.array], mx.array]:
    return make_row_sampler([row.request.policy for row in rows], logits.shape[-1])


def _uniforms(rows: list[_Row]) -> mx.array:
    return mx.array(np.array([row.next_uniform() for row in rows], dtype=np.uint32))
