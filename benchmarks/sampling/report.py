"""sampling.jsonl as Markdown: of every experiment, model and chip the newest run, every figure from its rows."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.rounds import (
    above_weights,
    heading,
    megabytes,
    newest_runs,
    peak,
    pick,
    processor_seconds,
    ratio,
    seconds,
    spread,
    table_row,
    whole_rounds,
)
from benchmarks.sampling.parts import MEANING

Row = dict[str, Any]
OURS = "ours"


def render(rows: Sequence[Row]) -> str:
    lines = [
        "# Sampling: speed and memory against mlx-lm",
        "",
        "Written by `python -m benchmarks.sampling` from sampling.jsonl, which holds every run. Medians over rounds;",
        "the contestants of a table take turns in one process. *ours / this* compares the runs of a round: its median",
        "and, in brackets, its least and most. Above 1 ours makes more tokens a second; below 1 it takes less memory.",
        "*By processor time* is the same ratio for where other work moves the clock; on a GPU it says nothing.",
        "*Above weights* is the peak without what the model itself takes.",
    ]
    for run in newest_runs(rows):
        lines += ["", *heading(run), "", *TABLES[run[0]["experiment"]](run)]
    return "\n".join(lines) + "\n"


def _runs(run: list[Row]) -> list[str]:
    """Throughput and samples: a line a contestant."""
    run = whole_rounds(run, "engine", "rows")
    base = pick(run, engine=OURS, rows=run[0]["rows"])
    lines = [
        f"{run[0]['requests']} requests, {run[0]['prompt_tokens']:,} prompt tokens, {run[0]['tokens']:,} drawn, "
        f"rounds: {len(base)}.",
        "",
        "| engine | rows | tokens/s | ours / this | by processor time | peak MB | ours / this | above weights MB |"
        " ours / this |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in dict.fromkeys((row["engine"], row["rows"]) for row in run):
        its = pick(run, engine=name, rows=rows)
        cells = [
            name,
            str(rows),
            f"{statistics.median(row['tokens'] / row['seconds'] for row in its):,.0f}",
            ratio(its, base, seconds),
            ratio(its, base, processor_seconds),
            megabytes(its, peak),
            ratio(base, its, peak),
            megabytes(its, above_weights),
            ratio(base, its, above_weights),
        ]
        lines.append(table_row(cells))
    of = [row["peak_bytes"] / row["expected_peak_bytes"] for row in base]
    lines += ["", f"Peak memory of ours at {base[0]['rows']} rows, of what its admission expected: {spread(of)}."]
    return lines


def _steps(run: list[Row]) -> list[str]:
    run = whole_rounds(run, "engine", "rows")
    row = run[0]
    lines = [
        f"{row['rows']} rows, prompts of four lengths up to {row['longest_prompt']}, {row['new_tokens']} steps. "
        "Each step is the median of its rounds.",
        "",
        "| engine | median ms | longest ms | its step | processor: median ms | longest ms | its step | peak MB |"
        " share of the bandwidth |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["engine"] for row in run):
        its = pick(run, engine=name)
        shares = [row["bandwidth_share"] for row in its]
        cells = [
            name,
            *_trace([row["milliseconds"] for row in its]),
            *_trace([row["processor_milliseconds"] for row in its]),
            megabytes(its, peak),
            "not known here" if None in shares else f"{statistics.median(shares):.0%}",
        ]
        lines.append(table_row(cells))
    return lines


def _trace(rounds: list[list[float]]) -> tuple[str, str, str]:
    """Median and longest step, and which that was; a round's trace begins with step 2."""
    steps = [statistics.median(step) for step in zip(*rounds, strict=True)]
    return f"{statistics.median(steps):.1f}", f"{max(steps):.1f}", str(steps.index(max(steps)) + 2)


def _parts(run: list[Row]) -> list[str]:
    lines = [
        f"{run[0]['rows']} rows, {run[0]['positions']} tokens in the cache; each part alone, milliseconds of processor "
        "time, the least of ten.",
        "",
        "| part | ms | what |",
        "|---|---|---|",
    ]
    least = {name: min(row["milliseconds"][name] for row in run) for name in MEANING}
    lines += [f"| {name} | {least[name]:.2f} | {what} |" for name, what in MEANING.items()]
    rest = least["forward"] - sum(least[name] for name in ("linear", "attention", "cache_update"))
    return [*lines, f"| rest of forward | {rest:.2f} | norms, rotary positions, activations, launching |"]


TABLES: dict[str, Callable[[list[Row]], list[str]]] = {
    "throughput": _runs,
    "samples": _runs,
    "steps": _steps,
    "parts": _parts,
}
