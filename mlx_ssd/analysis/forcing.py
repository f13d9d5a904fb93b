"""Base and student teacher-forced on the same texts: from texts to parts on disk.

A part is some thousands of tokens of consecutive texts. Its hidden states are computed first, in packed rows as in
training; then the vocabulary-wide part, a chunk of positions at a time, all of one shape so that it compiles once.
Nothing is held longer than a part, so memory does not grow with the texts; a part that is there whole is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_ssd import heartbeat
from mlx_ssd.analysis import store
from mlx_ssd.analysis.labels import RULE
from mlx_ssd.analysis.store import LABELS, SIDES, SUMS, Text
from mlx_ssd.analysis.terms import measure
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.errors import WorkFailed
from mlx_ssd.progress import progress
from mlx_ssd.training import lora
from mlx_ssd.training.batches import Batch, pack_rows, pad_rows
from mlx_ssd.training.documents import can_pack
from mlx_ssd.training.forward import Head, completion_states, output_head
from mlx_ssd.training.rows import length
from mlx_ssd.training.targets import Base

VERSION = 1
PART_TOKENS = 4096  # completion tokens of a part, at least: two hidden states of each are held at once
ROW_TOKENS = 2048  # positions of a forward pass; a longer text is one of its own
CHUNK_BYTES = 16 * 2**20  # of one float32 copy of a chunk's logits; about ten are there at a time
MOST_POSITIONS = 1024  # of a chunk


@dataclass(frozen=True)
class Pair:
    """Base and student: each gives, of a batch, what its head is applied to, and the head."""

    base: Base
    student: Base
    packed: bool
    headed: bool  # False: the head is part of the model, and what it is applied to are logits already


def pair_of(student: nn.Module, base: nn.Module | None = None) -> Pair:
    """`base` is needed where the student wears no adapter that could be switched off."""
    head = output_head(student)
    if base is None:
        return Pair(lora.base_of(student, head), _as_it_is(student, head), can_pack(student), head is not None)
    of_base = output_head(base)
    return Pair(
        _as_it_is(base, of_base),
        _as_it_is(student, head),
        can_pack(student) and can_pack(base),
        head is not None and of_base is not None,
    )


def _as_it_is(model: nn.Module, head: Head | None) -> Base:
    def side(batch: Batch) -> tuple[mx.array, Callable[[mx.array], mx.array]]:
        return completion_states(model, head, batch), head.of(model) if head else lambda states: states

    return side


def force(
    texts: Sequence[Text],
    folder: Path,
    arm: str,
    load: Callable[[], Pair],
    sampling: DecodingPolicy,
    evaluation: DecodingPolicy,
    identity: str,
) -> dict[str, Any]:
    """Write the parts of an arm that are not there. `load` is called only if something is missing; `identity` names
    texts, models and policies. Raises WorkFailed where a model has no distribution.
    """
    plan = list(_parts(texts))
    files = [store.part_file(folder, arm, number) for number in range(len(plan))]
    for stale in set(store.part_files(folder, arm)) - set(files):
        stale.unlink()
    ranges = zip(files, plan, strict=True)
    missing = [(file, *part) for file, part in ranges if not store.is_whole(file, *part, identity)]
    total = sum(len(text.completion_ids) for text in texts)
    left = sum(len(text.completion_ids) for _, first, count in missing for text in texts[first : first + count])
    if not missing:
        return {"tokens": total, "forced": 0}
    pair, terms = load(), measure(sampling, evaluation)
    with progress(f"analyze {arm}", total, total - left, "tokens") as bar:
        for file, first, count in missing:
            chosen = texts[first : first + count]
            columns = _columns(chosen, first, pair, terms, f"{arm}, texts from {first}")
            store.write_part(file, first, count, columns, identity)
            mx.clear_cache()  # a buffer serves again for about its own size alone, and rows are of all lengths
            bar.update(bar.done + len(columns["token"]))
    return {"tokens": total, "forced": left}


def _parts(texts: Sequence[Text]) -> Iterator[tuple[int, int]]:
    """(first text, texts) of every part."""
    first, tokens = 0, 0
    for number, text in enumerate(texts, start=1):
        tokens += len(text.completion_ids)
        if tokens >= PART_TOKENS or number == len(texts):
            yield first, number - first
            first, tokens = number, 0


def batches(texts: Sequence[Text], packed: bool, row_tokens: int) -> Iterator[Batch]:
    """Consecutive texts together, about `row_tokens` positions: their completion tokens stay in order."""
    make, chosen, used, widest = (pack_rows if packed else pad_rows), [], 0, 0
    for text in texts:
        needed = length(text) - 1
        widest = max(widest, needed)
        room = used + needed if packed else (len(chosen) + 1) * widest
        if chosen and room > row_tokens:
            yield make(chosen)
            chosen, used, widest = [], 0, needed
        chosen.append(text)
        used += needed
    yield make(chosen)


def _columns(texts: Sequence[Text], first: int, pair: Pair, terms: Any, where: str) -> dict[str, np.ndarray]:
    """A part's columns and sums."""
    row_tokens = ROW_TOKENS if pair.headed else ROW_TOKENS // 4
    found: list[dict[str, np.ndarray]] = []
    states: list[tuple[mx.array, mx.array]] = []
    targets: list[np.ndarray] = []
    cut = list(batches(texts, pair.packed, row_tokens))
    for number, batch in enumerate(cut, start=1):
        (base, base_head), (student, student_head) = pair.base(batch), pair.student(batch)
        mx.eval(base, student)
        heartbeat.alive()
        states.append((base, student))
        targets.append(batch.targets)
        if number == len(cut) or not pair.headed:
            sides = [mx.concatenate(parts) for parts in zip(*states, strict=True)]
            found += _chunks(terms, *sides, base_head, student_head, np.concatenate(targets), where)
            states, targets = [], []
    columns = {name: np.concatenate([chunk[name] for chunk in found]) for name in found[0]}
    return _summed(columns, texts, first)


def _chunks(
    terms: Any, base: mx.array, student: mx.array, base_head: Any, student_head: Any, targets: np.ndarray, where: str
) -> Iterator[dict[str, np.ndarray]]:
    """The terms at every position: equal chunks, the last one filled up with its last position."""
    positions = len(targets)
    vocabulary = base_head(base[:1]).shape[-1]
    size = min(max(CHUNK_BYTES // (4 * vocabulary), 1), MOST_POSITIONS, positions)
    for start in range(0, positions, size):
        chosen = mx.array(np.minimum(np.arange(start, start + size), positions - 1))
        of_base = base_head(base[chosen]).astype(mx.float32)
        chunk = terms(of_base, student_head(student[chosen]).astype(mx.float32), mx.array(targets)[chosen])
        mx.eval(chunk)
        heartbeat.alive()
        valid = min(size, positions - start)
        columns = {name: np.array(value[:valid]) for name, value in chunk.items()}
        if failed := int(columns.pop("broken").sum()):
            raise WorkFailed(
                f"analyze {where}: the logits give no distribution at {failed} of {valid} positions (nan, infinity): "
                "the weights are damaged, or model.dtype is too narrow for them (try float32)"
            )
        yield columns


def _summed(columns: dict[str, np.ndarray], texts: Sequence[Text], first: int) -> dict[str, np.ndarray]:
    """With the columns that say where a token stands, and with what is kept as sums over texts summed up."""
    lengths = np.array([len(text.completion_ids) for text in texts])
    starts = np.cumsum(lengths) - lengths
    numbers = np.arange(first, first + len(texts))
    columns["text"] = np.repeat(numbers, lengths)
    columns["position"] = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    labels = RULE.labels(columns)
    of_label = labels[:, None] == np.arange(len(LABELS))
    for name in [f"{side}.{quantity}_by_temperature" for side in SIDES for quantity in ("surviving", "entropy")]:
        apart = columns[name][:, None, :] * of_label[:, :, None]
        columns[f"{name}_and_label"] = np.add.reduceat(apart, starts, axis=0, dtype=np.float64)
    for name in SUMS.keys() & columns.keys():
        columns[name] = np.add.reduceat(columns[name], starts, axis=0, dtype=np.float64)
    return columns | {"text.index": numbers, "text.tokens": lengths}
