"""Rows of a benchmark's file, run by run and round by round, and the ratios between contestants."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.journal import Row


def newest_runs(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of the newest run of every experiment, model and chip."""
    runs: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        run = runs.setdefault((row["model"], row["machine"]["chip"], row["experiment"]), [])
        if run and run[0]["started"] != row["started"]:
            run.clear()
        run.append(row)
    return [run for _, run in sorted(runs.items(), key=lambda item: item[0][:2])]


def whole_rounds(run: list[Row], *apart: str) -> list[Row]:
    """Without the round in which the program was stopped. `apart`: the fields that tell contestants apart."""
    contestants = len({tuple(row[name] for name in apart) for row in run})
    rounds = [row["round"] for row in run]
    return [row for row in run if rounds.count(row["round"]) == contestants]


def pick(run: Sequence[Row], **fields: Any) -> list[Row]:
    """One contestant's rows, in the order of the rounds."""
    return [row for row in run if all(row[name] == value for name, value in fields.items())]


def heading(run: Sequence[Row]) -> list[str]:
    row = run[0]
    versions = ", ".join(f"{name} {row['versions'][name]}" for name in ("mlx", "mlx-lm"))
    loads = [r["load"] for r in run]
    return [
        f"## {row['experiment']}: {row['model']}, {row['machine']['chip']}",
        "",
        f"`{row['command']}`, {row['started']}, commit {row['commit']}, {versions}, {row['dtype']}, "
        f"threads: {row['threads']}, load {min(loads)} to {max(loads)}.",
    ]


def seconds(row: Row) -> float:
    return row["seconds"]


def processor_seconds(row: Row) -> float:
    return row["processor_seconds"]


def peak(row: Row) -> float:
    return row["peak_bytes"]


def above_weights(row: Row) -> float:
    return row["peak_bytes"] - row["weight_bytes"]


def megabytes(rows: Sequence[Row], of: Callable[[Row], float]) -> str:
    return f"{statistics.median(map(of, rows)) / 1e6:,.0f}"


def ratio(over: Sequence[Row], under: Sequence[Row], of: Callable[[Row], float]) -> str:
    """Of the runs of one round."""
    return spread([of(a) / of(b) for a, b in zip(over, under, strict=True)])


def spread(found: Sequence[float]) -> str:
    """Median [least, most]."""
    return f"{statistics.median(found):.2f} [{min(found):.2f}, {max(found):.2f}]"


def wanted_table(lines: Sequence[Sequence[str]]) -> str:
    """Markdown for docs/benchmarks.md. A line: what of ours, against what, how much was wanted, what was measured."""
    head = ["| what, of ours | against | wanted | measured |", "|---|---|---|---|"]
    return "\n".join([*head, *map(table_row, lines)])


def table_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
