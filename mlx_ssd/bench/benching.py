"""`mlx-ssd bench`: rows as they are finished, on disk before the next begins."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlx_ssd import machine
from mlx_ssd.bench.comparing import comparison
from mlx_ssd.bench.configurations import Configuration
from mlx_ssd.bench.measuring import Row, interleaved, measure, rate_of
from mlx_ssd.errors import Interrupted, WorkFailed
from mlx_ssd.progress import progress
from mlx_ssd.storage import fsync


def bench(
    configurations: Sequence[Configuration], repetitions: int, warmup: int, compare: bool, out: Path | None
) -> Iterator[Row]:
    """Rows, and with `compare` the comparisons of the first with each other one; each is appended to `out` first.

    A configuration that fails is named, and the others are measured. Raises WorkFailed at the end then, BadInput at
    once, and Interrupted.
    """
    machine.keep_awake()
    if out:
        _append(out, [])  # a file that cannot be written is found out now
    try:
        rows = _compared(configurations, repetitions, warmup) if compare else _each(configurations, repetitions, warmup)
        for row in rows:
            if out:
                _append(out, [row])
            yield row
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the rows that were finished are kept") from None


def _each(configurations: Sequence[Configuration], repetitions: int, warmup: int) -> Iterator[Row]:
    failures, rate = [], rate_of(configurations[0])
    with progress("bench", len(configurations), 0, "configurations") as bar:
        for done, configuration in enumerate(configurations, start=1):
            try:
                yield from measure([configuration], repetitions, warmup, rate)
            except WorkFailed as failure:
                failures.append(str(failure))
            bar.update(done, configuration.subject.name)
    if failures:
        raise WorkFailed("; ".join(failures))


def _compared(configurations: Sequence[Configuration], rounds: int, warmup: int) -> Iterator[Row]:
    rows = interleaved(configurations, rounds, warmup)
    yield from rows
    yield from (comparison(rows[0], row) for row in rows[1:])


def _append(out: Path, rows: Sequence[Row]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out, "a", encoding="utf-8") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    fsync(out)
