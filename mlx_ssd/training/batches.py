"""From rows of token ids to the micro-batches of every optimizer step.

A micro-batch is one row of whole samples, one behind the other, up to `row_tokens` long: no padding at all, and each
sample attends to itself alone (documents.py). Where a model's layers cannot be kept apart in that way, it is a few
padded rows of like length.

The targets of a sample are exactly its completion ids: no padding is ever a target, and an end of turn is trained only
where it stands among them. (mlx-lm's `default_loss` trains one pad token a row: issue 1697.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from mlx_ssd.training.ranks import Ranks
from mlx_ssd.training.rows import epoch_order, length

PAD = 0  # any id serves: padding is on the right, where causal attention keeps every target from seeing it


@dataclass(frozen=True)
class Batch:
    """B rows of T positions, with N completion tokens to predict among them."""

    tokens: np.ndarray  # [B, T] int32, the model's input
    positions: np.ndarray  # [N] int32, indices into the flattened B*T: where a completion token is predicted
    targets: np.ndarray  # [N] int32, the completion token predicted there
    documents: tuple[int, ...] = ()  # of a packed row: the lengths of its samples, T together; () for padded rows


class BatchPlan:
    """The micro-batches of every optimizer step; (epoch, step in epoch) says all about where training stands.

    Each epoch takes every row once, each step `rows_per_step` of them (its last one what is left).
    """

    def __init__(self, rows: Sequence[Any], *, rows_per_step: int, row_tokens: int, packed: bool, seed: int):
        self.rows_per_step = rows_per_step
        self.steps_per_epoch = math.ceil(len(rows) / rows_per_step)
        self._cut = lambda chosen: list(micro_batches(chosen, row_tokens, packed)) if chosen else []
        self._order = lru_cache(maxsize=1)(lambda epoch: epoch_order(rows, seed, epoch))

    def batches(self, epoch: int, step: int) -> list[Batch]:
        """The micro-batches of step `step` (from 0) of epoch `epoch` (from 0)."""
        return self._cut(self._rows(epoch, step))

    def part(self, epoch: int, step: int, ranks: Ranks) -> tuple[list[Batch], int]:
        """The micro-batches that this rank computes, and the completion tokens that all ranks together do."""
        chosen = self._rows(epoch, step)
        return self._cut(ranks.part(chosen)), sum(len(row.completion_ids) for row in chosen)

    def _rows(self, epoch: int, step: int) -> Sequence[Any]:
        start = step * self.rows_per_step
        return self._order(epoch)[start : start + self.rows_per_step]


def micro_batches(rows: Sequence[Any], row_tokens: int, packed: bool) -> Iterator[Batch]:
    """Cut rows into batches of about `row_tokens` positions; a longer sample is a batch of its own."""
    if packed:
        return (pack_rows(chosen) for chosen in best_fit(rows, row_tokens))
    return (pad_rows(chosen) for chosen in _of_like_length(rows, row_tokens))


def best_fit(rows: Sequence[Any], row_tokens: int) -> list[list[Any]]:
    """Best-fit decreasing: the longest sample first, each where it leaves the least room; ties as they come."""
    packs: list[list[Any]] = []
    room: list[int] = []
    for row in sorted(rows, key=length, reverse=True):
        needed = length(row) - 1
        fitting = [place for place, free in enumerate(room) if free >= needed]
        if fitting:
            place = min(fitting, key=room.__getitem__)
        else:
            place = len(packs)
            packs.append([])
            room.append(row_tokens)
        packs[place].append(row)
        room[place] -= needed
    return packs


def _of_like_length(rows: Sequence[Any], row_tokens: int) -> Iterator[list[Any]]:
    chosen: list[Any] = []
    for row in sorted(rows, key=length):
        if chosen and (len(chosen) + 1) * (length(row) - 1) > row_tokens:
            yield chosen
            chosen = []
        chosen.append(row)
    yield chosen


def pack_rows(rows: Sequence[Any]) -> Batch:
    """All `rows` in one; a sample's last token is a target only, not an input."""
    lengths = tuple(length(row) - 1 for row in rows)
    tokens = [token for row in rows for token in (*row.prompt_ids, *row.completion_ids)[:-1]]
    starts = np.cumsum([0, *lengths[:-1]])
    return Batch(np.asarray([tokens], dtype=np.int32), *_predicted(rows, starts), lengths)


def pad_rows(rows: Sequence[Any]) -> Batch:
    """One batch of all `rows`, as long as the longest; a row's last token is a target only, not an input."""
    width = max(map(length, rows)) - 1
    tokens = np.full((len(rows), width), PAD, dtype=np.int32)
    for i, row in enumerate(rows):
        tokens[i, : length(row) - 1] = [*row.prompt_ids, *row.completion_ids][:-1]
    return Batch(tokens, *_predicted(rows, width * np.arange(len(rows))))


def _predicted(rows: Sequence[Any], starts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Positions and targets; the last prompt token predicts the first of the completion."""
    firsts = [start + len(row.prompt_ids) - 1 for row, start in zip(rows, starts, strict=True)]
    positions = [first + np.arange(len(row.completion_ids)) for row, first in zip(rows, firsts, strict=True)]
    targets = [row.completion_ids for row in rows]
    return np.concatenate(positions).astype(np.int32), np.concatenate(targets).astype(np.int32)
