"""Batched generation behind a seam: requests in, completions out in the order they finish.

For now on mlx-lm's BatchGenerator (continuous batching). Its own samplers are not used: they
truncate before they temper, and draw from one global random state, so that a sample would depend
on its batch mates (docs/decoding.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.generate import BatchGenerator

from mlx_ssd.decoding.policy_mlx import make_sampler
from mlx_ssd.decoding.rng import uniform_u32
from mlx_ssd.errors import WorkFailed


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


def generate(
    model: Any,
    requests: Iterable[Request],
    policy: Any,
    stop_tokens: Iterable[int],
    rows: int,
    on_tokens: Callable[[int], None] | None = None,
) -> Iterator[Completed]:
    """Decode `rows` requests side by side; each is yielded the step it ends and its row given to the next.

    A completion is a function of the model, the prompt, the policy and the request's random key alone:
    not of batch mates, their number or order, except through kernel rounding (rule 3).
    `on_tokens` is called after each step with the number of tokens it drew.
    """
    draw = mx.compile(make_sampler(policy))
    generator = BatchGenerator(
        model,
        stop_tokens=[[token] for token in stop_tokens],
        completion_batch_size=rows,
        prefill_batch_size=rows,
    )
    requests = list(requests)
    uids = generator.insert(
        [request.prompt_ids for request in requests],
        max_tokens=[request.max_tokens for request in requests],
        samplers=[_row_sampler(draw, request.random_key, request.max_tokens) for request in requests],
    )
    waiting = dict(zip(uids, requests, strict=True))
    drawn: dict[int, list[int]] = {}
    try:
        while waiting:
            responses = generator.next_generated()
            for response in responses:
                tokens = drawn.setdefault(response.uid, [])
                tokens.append(response.token)
                if response.finish_reason is not None:
                    request = waiting.pop(response.uid)
                    # A number that is not finite stays in the row's cache, so its last token shows it.
                    if not mx.isfinite(response.logprobs.max()).item():
                        raise WorkFailed(
                            f"the model's output for {request.key} is not finite; its weights are damaged, or "
                            "model.dtype is too narrow for it (try float32)"
                        )
                    yield Completed(request.key, drawn.pop(response.uid), response.finish_reason)
            if on_tokens:
                on_tokens(len(responses))
    finally:
        generator.close()


def _row_sampler(draw: Callable, random_key: tuple[int, int], max_tokens: int) -> Callable[[mx.array], mx.array]:
    """One row's sampler, which counts its own position. BatchGenerator calls it once a token with
    that row's [1, vocabulary] log-probabilities; the draw depends on differences of them only."""
    uniforms: list[mx.array] = []
    position = -1

    def sample(logprobs: mx.array) -> mx.array:
        nonlocal position
        position += 1
        if not uniforms:
            # BatchGenerator works one step ahead: one draw more than tokens.
            uniforms.extend(mx.array(uniform_u32(random_key, np.arange(max_tokens + 1))).reshape(-1, 1))
        # A row without a distribution draws no token (NO_TOKEN); the model must not look that up.
        return mx.minimum(draw(logprobs, uniforms[position]), logprobs.shape[-1] - 1)

    return sample
