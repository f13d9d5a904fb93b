"""Comparisons of whole trainers, in turns, and the counting of padding; a row is one run of one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_lm.tuner.datasets import CacheDataset
from mlx_lm.tuner.trainer import iterate_batches

from benchmarks.journal import Row
from benchmarks.sampling.workload import Subject
from benchmarks.training.head import OURS
from benchmarks.training.trainers import MAX_LENGTH, ROWS_PER_STEP, File, MlxLm, Ours, Trainer
from benchmarks.training.workload import training_rows
from benchmarks.turns import measure, seconds_of, turns
from mlx_ssd.training.batches import BatchPlan
from mlx_ssd.training.rows import length

DEFAULTS, BEST = "mlx_lm, defaults", "mlx_lm, best"
SMALL_PARAMETERS = 10_000_000
COUNTED = 1024


@dataclass(frozen=True)
class Contestant:
    name: str
    train: Trainer
    settings: Row


def samples_of(subject: Subject) -> int:
    """Rows of one run: whole steps, as many as a round can wait for."""
    return 16 * ROWS_PER_STEP if subject.size.parameters < SMALL_PARAMETERS else ROWS_PER_STEP


def throughput(
    subject: Subject, samples: int, row_tokens: int, batch_sizes: Sequence[int], rounds: int
) -> Iterator[Row]:
    """Ours, mlx-lm as its command line trains, and mlx-lm at its best: rows sorted by length, gradients accumulated to
    steps of as many rows as ours, freed memory kept, and the fastest of `batch_sizes`, each tried once beforehand."""
    candidates = {size: MlxLm(size, sort=True, accumulate=True, keep_cache=True) for size in batch_sizes}
    _warm_up(subject, candidates.values())
    rates = {}
    for size, trainer in candidates.items():
        row = _run(subject, trainer, training_rows(subject, samples, order=0))
        rates[size] = round(row["completion_tokens"] / row["seconds"], 1)
    fastest = max(rates, key=rates.__getitem__)
    contestants = [
        Contestant(OURS, Ours(row_tokens), {"row_tokens": row_tokens}),
        Contestant(DEFAULTS, MlxLm(), {"batch_size": MlxLm().batch_size}),
        Contestant(BEST, candidates[fastest], {"batch_size": fastest}),
    ]
    for row in _in_turns(subject, contestants, samples, rounds):
        yield {**row, "tried": rates}


def targets(subject: Subject, samples: int, row_tokens: int, rounds: int) -> Iterator[Row]:
    """Soft targets against tokens: one more forward pass, of the base, and its truncated distribution."""
    contestants = [
        Contestant(kind, Ours(row_tokens, kind), {"row_tokens": row_tokens}) for kind in ("tokens", "distribution")
    ]
    yield from _in_turns(subject, contestants, samples, rounds)


def packing(subject: Subject, row_tokens: int) -> Iterator[Row]:
    """Counted, not timed: positions that carry loss, of prompts, and of padding. mlx-lm trains on one position of
    padding a row: it is counted as padding."""
    rows = training_rows(subject, COUNTED, order=0)
    by_length, size = sorted(rows, key=length), MlxLm().batch_size
    computed = {
        "ours, packed": _ours_computed(rows, row_tokens, packed=True),
        "ours, padded": _ours_computed(rows, row_tokens, packed=False),
        DEFAULTS: _mlx_lm_computed(rows, size),
        f"mlx_lm, sorted, batches of {size}": _mlx_lm_computed(by_length, size),
    }
    carrying = sum(len(row.completion_ids) for row in rows)
    inputs = sum(length(row) - 1 for row in rows)  # the last token is a target only
    for name, positions in computed.items():
        yield {
            "engine": name,
            "samples": len(rows),
            "row_tokens": row_tokens,
            "carrying": carrying,
            "prompt": inputs - carrying,
            "padding": positions - inputs,
            "load": round(os.getloadavg()[0], 1),
        }


def _ours_computed(rows: Sequence[Any], row_tokens: int, packed: bool) -> int:
    plan = BatchPlan(rows, rows_per_step=ROWS_PER_STEP, row_tokens=row_tokens, packed=packed, seed=0)
    return sum(batch.tokens.size for step in range(plan.steps_per_epoch) for batch in plan.batches(0, step))


def _mlx_lm_computed(rows: Sequence[Any], batch_size: int) -> int:
    batches = iterate_batches(CacheDataset(File(rows)), batch_size, MAX_LENGTH, seed=0)
    return sum(batch.shape[0] * (batch.shape[1] - 1) for batch, _ in batches)


def _in_turns(subject: Subject, contestants: Sequence[Contestant], samples: int, rounds: int) -> Iterator[Row]:
    _warm_up(subject, (contestant.train for contestant in contestants))
    for number, contestant in turns(contestants, rounds):
        row = _run(subject, contestant.train, training_rows(subject, samples, order=number))
        yield {"engine": contestant.name, "round": number, **row, **contestant.settings}


def _warm_up(subject: Subject, trainers: Iterable[Trainer]) -> None:
    """A step of short rows: kernels are compiled (on a CPU by a C++ compiler, half a minute for mlx-lm's step), buffers
    touched."""
    rows = training_rows(subject, ROWS_PER_STEP, order=0)
    short = [row.model_copy(update={"completion_ids": row.completion_ids[:8]}) for row in rows]
    for trainer in trainers:
        trainer(subject.model, short)


def _run(subject: Subject, train: Trainer, rows: Sequence[Any]) -> Row:
    """One run, its seconds those of the training steps. Raises AssertionError where a completion token was left out."""
    work, measured = measure(lambda: train(subject.model, rows))
    expected = sum(len(row.completion_ids) for row in rows)
    if work.completion_tokens != expected:
        raise AssertionError(f"{train}: {work.completion_tokens} of {expected} completion tokens trained")
    return {
        "samples": len(rows),
        "completion_tokens": expected,
        "positions": work.positions,
        "padding": work.positions - sum(length(row) - 1 for row in rows),
        **measured,
        **seconds_of(work.took),
        "tracing_seconds": round(float(work.traced[0]), 3),
    }
