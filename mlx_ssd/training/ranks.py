"""The ranks of a data-parallel training: which rows of a step each computes, and sums over all of them.

A step's gradient is the sum of the ranks' parts, each divided by the completion tokens of the whole step: however rows
are dealt out, it is that of one rank up to rounding, and every rank makes the same update.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx

from mlx_ssd.errors import RankLost
from mlx_ssd.training.rows import length


class Ranks:
    """One rank, and no other: nothing is sent, nothing is changed."""

    rank, size = 0, 1

    def part(self, rows: Sequence[Any]) -> Sequence[Any]:
        """The rows that this rank computes: each row is one rank's, and all have about as many tokens."""
        if self.size == 1:
            return rows
        parts: list[list[Any]] = [[] for _ in range(self.size)]
        tokens = [0] * self.size
        for row in sorted(rows, key=length, reverse=True):
            least = tokens.index(min(tokens))
            parts[least].append(row)
            tokens[least] += length(row)
        return parts[self.rank]

    def sum(self, arrays: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Over all ranks, evaluated; every rank must ask, for the same names and shapes. Raises RankLost."""
        return dict(arrays)

    def from_first(self, arrays: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Those of rank 0."""
        return self.sum({name: mx.zeros_like(array) for name, array in arrays.items()} if self.rank else arrays)


class Group(Ranks):
    """The ranks of a group of MLX's (`mx.distributed.init`)."""

    def __init__(self, group: Any):
        self._group, self.rank, self.size = group, group.rank(), group.size()

    def sum(self, arrays: Mapping[str, mx.array]) -> dict[str, mx.array]:
        # One message for all: each costs a round through all ranks. By name, for of what comes from a checkpoint the
        # order is another.
        arrays = dict(sorted(arrays.items()))
        flat = mx.concatenate([array.astype(mx.float32).reshape(-1) for array in arrays.values()])
        try:
            total = mx.distributed.all_sum(flat, group=self._group)
            mx.eval(total)
        except RuntimeError as error:
            raise RankLost(f"another rank of the training was lost ({error})") from None
        summed, start = {}, 0
        for name, array in arrays.items():
            part = total[start : start + array.size]
            summed[name] = part.reshape(array.shape).astype(array.dtype)
            start += array.size
        return summed
