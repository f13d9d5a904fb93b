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
from mlx_lm.models.cache import ConcatenateKVCache, make_prompt_cache

from mlx_ssd.errors import BadInput
from mlx_ssd.sampling.kv import capacity_for

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
        reached = drawn + self._ahead
        there = np.where(reached <= limit, survival(reached - 1) / np.maximum(survival(drawn - 1), 1e-9), 0.0)
        return float((there * bytes_of(prompt + reached)).sum(axis=0).max())


Size = tuple[int, int, int]  # of a row: tokens of the prompt, drawn so far, the most that may be drawn


class Room:
    """The memory that generation may take, and what of it rows take."""

    def __init__(self, model: Any, sizes: Sequence[Size], memory: int | None, grouped: bool):
        """Raises BadInput if one of these rows alone does not fit."""
        self.lengths = LengthForecast(max(limit for _, _, limit in sizes))
        self._memory, self._grouped = memory, grouped
        if memory is None:
            return
        self._token_bytes = token_bytes(model, grouped)
        self._fixed = weight_bytes(model)
        largest = max(sizes, key=lambda size: size[0] + size[2])
        need = self._fixed + self._bytes_of(np.array(largest[0] + largest[2]))
        if need > memory:
            raise BadInput(
                f"one answer of {largest[2]:,} tokens to a prompt of {largest[0]:,} takes {need / 1e9:.2f} GB "
                f"({self._fixed / 1e9:.2f} GB of it the weights), and {memory / 1e9:.2f} GB may be used; lower "
                "max_tokens, raise memory_gb, or take a smaller model"
            )

    def fits(self, rows: Sequence[Size], held: int) -> bool:
        """Whether rows can go on with a step. held: bytes of contexts that wait."""
        if self._memory is None:
            return True
        tokens = np.array([prompt + (drawn if self._grouped else limit) for prompt, drawn, limit in rows])
        return self._fixed + held + self._bytes_of(tokens).sum() <= self._memory

    def will_fit(self, rows: Sequence[Size]) -> bool:
        """Whether rows are expected to fit as long as they run."""
        if self._memory is None:
            return True
        room = self._memory - self._fixed
        most = self._bytes_of(np.array([prompt + limit for prompt, _, limit in rows])).sum()
        return most <= room or (self._grouped and self.lengths.highest(rows, self._bytes_of) <= room)

    def _bytes_of(self, tokens: np.ndarray) -> np.ndarray:
        return self._token_bytes * _capacities(tokens)


_capacities = np.vectorize(capacity_for, otypes=[np.int64])


def weight_bytes(model: Any) -> int:
    return tree_reduce(lambda total, x: total + (x.nbytes if isinstance(x, mx.array) else 0), model.parameters(), 0)


def token_bytes(model: Any, grouped: bool) -> int:
    """Bytes of state that a token of context takes, by the shapes of a forward pass that is never computed."""
    caches = make_prompt_cache(model)
    if grouped:
        caches = [ConcatenateKVCache() for _ in caches]
    model(mx.zeros((1, 1), dtype=mx.int32), cache=caches)
    return sum(cache.nbytes for cache in caches) // (1 if grouped else 256)
