"""Which rows are trained on, which are held out, and in which order: pure functions of the rows and the seed.

A row is anything with `problem_id`, `sample_index`, `prompt_ids` and `completion_ids` (lists of token ids).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlx_ssd.errors import BadInput


@dataclass(frozen=True)
class TokenRow:
    """A row of which the end was cut off."""

    problem_id: str
    sample_index: int
    prompt_ids: list[int]
    completion_ids: list[int]


@dataclass(frozen=True)
class Fitted:
    """The rows that `max_length` lets through, and how many it cost."""

    rows: list[Any]
    dropped: int
    cut: int


def length(row: Any) -> int:
    return len(row.prompt_ids) + len(row.completion_ids)


def fit_rows(rows: Sequence[Any], max_length: int, too_long: str) -> Fitted:
    """Deal with rows of more than `max_length` tokens as `too_long` says.

    error  refuse them
    drop   leave them out
    cut    keep what fits of the completion, without an end of turn: the model produced none there. Where not even its
           first token fits, the row is left out.

    (mlx-lm cuts with a warning, and where the prompt alone is as long as the limit its loss is 0 / 0: issue 1355.)
    Raises BadInput for no rows, a row without prompt or completion, one too long under `error`, and where none is left.
    """
    if not rows:
        raise BadInput("there are no training rows: sample more, or filter less")
    kept, dropped, cut = [], 0, 0
    for row in rows:
        if not row.prompt_ids or not row.completion_ids:
            raise BadInput(f"{name(row)} has an empty prompt or completion, so there is nothing to train: drop it")
        room = max_length - len(row.prompt_ids)
        if len(row.completion_ids) <= room:
            kept.append(row)
        elif too_long == "error":
            raise BadInput(
                f"{name(row)} has {length(row)} tokens, {len(row.prompt_ids)} of them prompt, more than "
                f"train.max_length {max_length}: raise it, or set train.too_long to drop or cut"
            )
        elif too_long == "cut" and room > 0:
            kept.append(TokenRow(row.problem_id, row.sample_index, row.prompt_ids, row.completion_ids[:room]))
            cut += 1
        else:
            dropped += 1
    if not kept:
        raise BadInput(
            f"train.max_length {max_length} leaves none of {len(rows)} training rows: the shortest has "
            f"{min(map(length, rows))} tokens; raise it"
        )
    return Fitted(kept, dropped, cut)


def name(row: Any) -> str:
    return f"training row (problem {row.problem_id}, sample {row.sample_index})"


def hold_out(rows: Sequence[Any], percent: float) -> tuple[list[Any], list[Any]]:
    """(rows to train on, rows held out): all samples of about `percent` of the problems are held out, at least one's.

    Which problems these are depends on their names alone, so that runs of other seeds and arms hold out the same ones.
    Raises BadInput where that leaves nothing to train on.
    """
    problems = sorted({row.problem_id for row in rows}, key=lambda problem: _digest("held out", problem))
    count = max(round(len(problems) * percent / 100), 1)
    if count >= len(problems):
        raise BadInput(
            f"train.validation holds out {count} of {len(problems)} problems, which leaves nothing to train on: sample "
            "more problems, or set train.validation to null"
        )
    chosen = set(problems[:count])
    training = [row for row in rows if row.problem_id not in chosen]
    held_out = [row for row in rows if row.problem_id in chosen]
    return training, sorted(held_out, key=lambda row: (row.problem_id, row.sample_index))


def epoch_order(rows: Sequence[Any], seed: int, epoch: int) -> list[Any]:
    """A shuffle by hashed row name: independent of the order of `rows` and of any library's generator."""
    return sorted(rows, key=lambda row: _digest(seed, epoch, row.sample_index, row.problem_id))


def _digest(*parts: Any) -> bytes:
    return hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=16).digest()
