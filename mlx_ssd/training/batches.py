"""From rows of token ids to padded micro-batches, in an order that is a pure function of (seed, epoch).

A row is anything with `problem_id`, `sample_index`, `prompt_ids` and `completion_ids` (lists of token ids).
Its targets are exactly its completion ids: nothing is cut, no padding is ever a target, and an end of turn is
trained only where it stands among them. (mlx-lm's `default_loss` trains one pad token a row: issue 1697.)
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from mlx_ssd.errors import BadInput

PAD = 0  # any id serves: padding is on the right, where causal attention keeps every target from seeing it


@dataclass(frozen=True)
class Batch:
    """B rows, right-padded to T positions, with N completion tokens to predict among them."""

    tokens: np.ndarray  # [B, T] int32, the model's input
    positions: np.ndarray  # [N] int32, indices into the flattened B*T: where a completion token is predicted
    targets: np.ndarray  # [N] int32, the completion token predicted there


class BatchPlan:
    """The micro-batches of every optimizer step; (epoch, step in epoch) says all about where training stands.

    Each epoch takes every row once. A step takes `rows_per_step` of them (its last one what is left), sorts
    them by length so that there is little padding, and cuts them into batches of `rows_per_micro_batch`.

    Raises BadInput for no rows, a row without prompt or completion, or one of more than `max_length` tokens.
    """

    def __init__(
        self,
        rows: Sequence[Any],
        *,
        rows_per_step: int,
        rows_per_micro_batch: int,
        max_length: int,
        seed: int,
    ):
        if not rows:
            raise BadInput("there are no training rows: sample more, or filter less")
        for row in rows:
            _check_row(row, max_length)
        self.rows_per_step = rows_per_step
        self.rows_per_micro_batch = rows_per_micro_batch
        self.steps_per_epoch = math.ceil(len(rows) / rows_per_step)
        self._order = lru_cache(maxsize=1)(lambda epoch: epoch_order(rows, seed, epoch))

    def batches(self, epoch: int, step: int) -> list[Batch]:
        """The micro-batches of step `step` (from 0) of epoch `epoch` (from 0)."""
        start = step * self.rows_per_step
        rows = sorted(self._order(epoch)[start : start + self.rows_per_step], key=_length)
        size = self.rows_per_micro_batch
        return [pad_rows(rows[i : i + size]) for i in range(0, len(rows), size)]


def epoch_order(rows: Sequence[Any], seed: int, epoch: int) -> list[Any]:
    """A shuffle by hashed row name: independent of the order of `rows` and of any library's generator."""

    def key(row: Any) -> bytes:
        name = f"{seed}/{epoch}/{row.sample_index}/{row.problem_id}"
        return hashlib.blake2b(name.encode(), digest_size=16).digest()

    return sorted(rows, key=key)


def pad_rows(rows: Sequence[Any]) -> Batch:
    """One batch of all `rows`, as long as the longest; a row's last token is a target only, not an input."""
    width = max(_length(row) for row in rows) - 1
    tokens = np.full((len(rows), width), PAD, dtype=np.int32)
    positions, targets = [], []
    for i, row in enumerate(rows):
        ids = [*row.prompt_ids, *row.completion_ids]
        tokens[i, : len(ids) - 1] = ids[:-1]
        first = i * width + len(row.prompt_ids) - 1  # the last prompt token predicts the first
        positions.append(np.arange(first, first + len(row.completion_ids), dtype=np.int32))
        targets.append(np.asarray(row.completion_ids, dtype=np.int32))
    return Batch(tokens, np.concatenate(positions), np.concatenate(targets))


def _length(row: Any) -> int:
    return len(row.prompt_ids) + len(row.completion_ids)


def _check_row(row: Any, max_length: int) -> None:
    name = f"training row (problem {row.problem_id}, sample {row.sample_index})"
    if not row.prompt_ids or not row.completion_ids:
        raise BadInput(f"{name} has an empty prompt or completion, so there is nothing to train: drop it")
    if _length(row) > max_length:
        raise BadInput(
            f"{name} has {_length(row)} tokens, more than max_length {max_length}: raise max_length, "
            "or drop or cut such rows"
        )
