"""How many rows fit: memory that the rows in decoding will need, forecast from the lengths seen so far.

A row that is admitted grows; most end early, and the longest must still fit. With S(n) the share of answers longer
than n tokens, estimated from those that ended and from those that still run (Kaplan and Meier, 1958), a row of d drawn
tokens is still there t steps from now with probability S(d + t) / S(d), and then holds d + t tokens and its prompt.
The sum over all rows, at its highest over t, is what admission compares with the memory there is. Where it was too low
the youngest row is put back (`engine`), so an error costs time and no sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_reduce
from mlx_lm.models.cache import ConcatenateKVCache, RotatingKVCache, make_prompt_cache

from mlx_ssd.budget.decoding import LEAST_PREFILL, capacity_for, logit_bytes, prefill_bytes, prefill_tokens
from mlx_ssd.sampling.requests import Size, too_large

LOOKS_AHEAD = 24  # points in time at which the forecast is made


class LengthForecast:
    """Memory that rows will need, from the lengths of answers."""

    def __init__(self, max_tokens: int):
        self._max_tokens = max_tokens
        self._ended: list[int] = []
        # From 1 to max_tokens, each about a third more than the one before.
        points = np.geomspace(1, max(max_tokens, 2), LOOKS_AHEAD).astype(int)
        self._ahead = np.unique(np.concatenate([[0], points]))

    def add(self, length: int) -> None:
        """An answer that ended by itself or by its own limit, with so many tokens."""
        self._ended.append(length)

    def survival(self, running: Sequence[int]) -> Callable[[np.ndarray], np.ndarray]:
        """S: share of answers longer than n tokens. running: what is drawn of answers that have not ended.

        One more answer is taken to reach max_tokens, so that before any has ended all are expected to.
        """
        ended, counts = np.unique(np.array(self._ended, dtype=int), return_counts=True)
        everyone = np.sort(np.array([*self._ended, *running, self._max_tokens]))
        at_risk = len(everyone) - np.searchsorted(everyone, ended, side="left")
        shares = np.concatenate([[1.0], np.cumprod(1 - counts / at_risk)])
        return lambda lengths: shares[np.searchsorted(ended, lengths, side="right")]

    def highest(self, rows: Sequence[tuple[int, int, int]], bytes_of: Callable[[np.ndarray], np.ndarray]) -> float:
        """The most bytes that `rows` are expected to hold at one time.

        rows: (tokens of the prompt, drawn so far, its own max_tokens). bytes_of: of a row of so many tokens.
        """
        if not rows:
            return 0.0
        prompt, drawn, limit = (column[:, None] for column in np.array(rows).T)
        survival = self.survival(drawn[:, 0].tolist())
        # Where some row reaches its limit, too: that is where sums are highest.
        reached = drawn + np.unique(np.concatenate([self._ahead, (limit - drawn)[:, 0]]))
        there = np.where(reached <= limit, survival(reached - 1) / np.maximum(survival(drawn - 1), 1e-9), 0.0)
        return float((there * bytes_of(prompt + reached)).sum(axis=0).max())


class Room:
    """The memory that generation may take, and what of it rows take.

    prefill_tokens: how many tokens of contexts go through the model at once; fewer where memory is short.
    expected_peak: bytes, the highest of what was ever expected.
    """

    def __init__(self, model: Any, sizes: Sequence[Size], memory: int | None, grouped: bool):
        """memory: bytes, None for no limit. Raises BadInput if one of these rows alone does not fit."""
        self.lengths = LengthForecast(max(limit for _, _, limit in sizes))
        self.expected_peak = 0.0
        self._memory = float("inf") if memory is None else memory
        self._grouped = grouped
        self._token_bytes = token_bytes(model, grouped)
        self._window_bytes = 0 if grouped else window_bytes(model)
        of_token, self._logit_bytes = working_bytes(model, max(prompt for prompt, _, _ in sizes))
        self.weights = weight_bytes(model)
        prompt, _, limit = max(sizes, key=lambda size: size[0] + size[2])
        row = self.row_bytes(prompt + limit)
        least = self.weights + LEAST_PREFILL * of_token + row
        if least > self._memory:
            raise too_large((prompt, 0, limit), least, self.weights, self._memory)
        self.prefill_tokens = prefill_tokens(self._memory, self.weights, row, of_token)
        self._fixed = self.weights + self.prefill_tokens * of_token

    def fits(self, rows: Sequence[Size], held: int) -> bool:
        """Whether rows can go on with a step. held: bytes of contexts that wait."""
        tokens = [prompt + (drawn if self._grouped else limit) for prompt, drawn, limit in rows]
        return not self.is_over(held + self._bytes_of(tokens).sum())

    def is_over(self, held: int) -> bool:
        return self._fixed + held > self._memory

    def will_fit(self, rows: Sequence[Size], held: int) -> bool:
        """Whether rows are expected to fit as long as they run."""
        most = self._bytes_of([prompt + limit for prompt, _, limit in rows]).sum()
        return not self.is_over(held + most) or self.expect(rows) + held <= self._memory

    def expect(self, rows: Sequence[Size]) -> float:
        """Bytes that rows, weights and working space are expected to take at their highest."""
        if self._grouped:
            highest = self.lengths.highest(rows, self._bytes_of)
        else:  # mlx-lm's caches keep every row as long as the longest
            highest = self._bytes_of([prompt + limit for prompt, _, limit in rows]).sum()
        return self._fixed + highest

    def row_bytes(self, tokens: int) -> int:
        """What a row that holds so many tokens takes."""
        return int(self._bytes_of([tokens])[0])

    def _bytes_of(self, tokens: Any) -> np.ndarray:
        slots = _SLOTS[np.searchsorted(_SLOTS, tokens)]
        return self._token_bytes * slots + self._window_bytes + self._logit_bytes


_SLOTS = np.unique([capacity_for(2**power + extra) for power in range(28) for extra in (0, 1)])  # all sizes of slots


def weight_bytes(model: Any) -> int:
    return tree_reduce(lambda total, x: total + (x.nbytes if isinstance(x, mx.array) else 0), model.parameters(), 0)


def token_bytes(model: Any, grouped: bool) -> int:
    """Bytes of state that a token of context takes, by the shapes of a forward pass that is never computed; without
    the layers that look back a window of tokens (`window_bytes`)."""
    caches = make_prompt_cache(model)
    if grouped:
        caches = [ConcatenateKVCache() for _ in caches]
    model(mx.zeros((1, 1), dtype=mx.int32), cache=caches)
    growing = [cache for cache in caches if not isinstance(cache, RotatingKVCache)]
    return sum(cache.nbytes for cache in growing) // (1 if grouped else 256)


def window_bytes(model: Any) -> int:
    """Bytes that a row takes in the layers that look back a window of tokens, however long it is."""
    caches = make_prompt_cache(model)
    model(mx.zeros((1, 1), dtype=mx.int32), cache=caches)
    full = [cache for cache in caches if isinstance(cache, RotatingKVCache)]
    return sum(cache.max_size * cache.nbytes // cache.keys.shape[2] for cache in full)


def working_bytes(model: Any, longest_prompt: int) -> tuple[int, int]:
    """What a forward pass takes beside weights and caches: for a token of a prompt, and for a row of a decoding step.

    One layer's activations, and the logits with their float32 copy. Where a model does not say how wide it is, only
    what it says counts.
    """
    logits = model(mx.zeros((1, 1), dtype=mx.int32), cache=make_prompt_cache(model))
    args = getattr(model, "args", None)
    names = ("hidden_size", "intermediate_size", "num_attention_heads")
    hidden, mlp, heads = (getattr(args, name, None) or 0 for name in names)
    token = prefill_bytes(hidden, mlp, heads, logits.itemsize, longest_prompt, mx.metal.is_available())
    return token, logit_bytes(logits.shape[-1], logits.itemsize)
