"""training.jsonl as Markdown: of every experiment, model and chip the newest run, every figure from its rows."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from benchmarks.journal import Row
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
    table_row,
    whole_rounds,
)

INTRODUCTION = """\
# Training: speed, memory and padding against mlx-lm

Written by `python -m benchmarks.training` from training.jsonl, which holds every run. Medians over rounds; the
contestants of a table take turns in one process. *Ours / this* (or the first of a table) compares the runs of a round:
its median and, in brackets, its least and most. Above 1 ours trains more tokens a second; below 1 it takes less memory.
*By positions* and *by a position's time* are its two factors: that ours computes fewer positions, being without
padding, and that one of them takes less time. *By processor time* is a ratio for where other work moves the clock; on
a GPU it says nothing. *Above weights* is the peak without what the model itself takes. Seconds are of training steps
alone; what mlx-lm's compiled step takes for tracing, at every new shape, is left out of them and given beside.
Completions are random tokens."""


def render(rows: Sequence[Row]) -> str:
    lines = [INTRODUCTION]
    for run in newest_runs(rows):
        lines += ["", *heading(run), "", *TABLES[run[0]["experiment"]](run)]
    return "\n".join(lines) + "\n"


def positions(row: Row) -> float:
    return row["positions"]


def seconds_a_position(row: Row) -> float:
    return row["seconds"] / row["positions"]


def carrying(row: Row) -> float:
    """Tokens that carry loss, of all that are computed but those of prompts."""
    return row["carrying"] / (row["carrying"] + row["padding"])


def _throughput(run: list[Row]) -> list[str]:
    run = whole_rounds(run, "engine")
    base = pick(run, engine=run[0]["engine"])
    lines = [
        f"{base[0]['samples']} rows, {base[0]['completion_tokens']:,} completion tokens, rounds: {len(base)}; ours "
        f"with row_tokens {base[0]['row_tokens']:,}.",
        "",
        "| trainer | batch size | tokens/s | ours / this | by positions | by a position's time | tracing s | padding |"
        " peak MB | ours / this | above weights MB | ours / this |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["engine"] for row in run):
        its = pick(run, engine=name)
        cells = [
            name,
            str(its[0].get("batch_size", "packed")),
            f"{statistics.median(row['completion_tokens'] / row['seconds'] for row in its):,.1f}",
            ratio(its, base, seconds),
            ratio(its, base, positions),
            ratio(its, base, seconds_a_position),
            f"{statistics.median(row['tracing_seconds'] for row in its):.1f}",
            f"{statistics.median(row['padding'] / row['positions'] for row in its):.0%}",
            megabytes(its, peak),
            ratio(base, its, peak),
            megabytes(its, above_weights),
            ratio(base, its, above_weights),
        ]
        lines.append(table_row(cells))
    by_size = ", ".join(f"{size}: {rate:,.1f}" for size, rate in run[0]["tried"].items())
    return [*lines, "", f"Tokens/s of mlx-lm at its best, tried once, by batch size: {by_size}."]


def _loss(run: list[Row]) -> list[str]:
    return [
        "Completion positions x hidden size x vocabulary. Above weights: without head and hidden states.",
        "Difference: the greatest of the gradients, by their greatest entry; quantized heads against dequantized ones.",
        "",
        *_cases(run, "head", "loss"),
    ]


def _attention(run: list[Row]) -> list[str]:
    return [
        "Forward and backward pass of one layer's attention over one sample. Above weights: without queries, keys,",
        "values and the gradient of the output. Difference: the greatest of the gradients, by their greatest entry.",
        "",
        *_cases(run, "sample", "attention"),
    ]


def _cases(run: list[Row], *columns: str) -> list[str]:
    run = whole_rounds(run, "case", "engine")
    names = [*columns, "seconds", "this / ours", "above weights MB", "ours / this", "difference"]
    lines = [table_row(names), "|---" * len(names) + "|"]
    for case, name in dict.fromkeys((row["case"], row["engine"]) for row in run):
        its, base = pick(run, case=case, engine=name), pick(run, case=case, engine=run[0]["engine"])
        cells = [
            case,
            name,
            f"{statistics.median(map(seconds, its)):.3f}",
            ratio(its, base, seconds),
            megabytes(its, above_weights),
            ratio(base, its, above_weights),
            f"{max(row['gradient_difference'] for row in its):.1g}",
        ]
        lines.append(table_row(cells))
    return lines


def _targets(run: list[Row]) -> list[str]:
    run = whole_rounds(run, "engine")
    base = pick(run, engine=run[0]["engine"])
    lines = [
        f"{base[0]['samples']} rows, rounds: {len(base)}, row_tokens {base[0]['row_tokens']:,}.",
        "",
        "| targets | tokens/s | time / that of tokens | by processor time | peak MB |",
        "|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["engine"] for row in run):
        its = pick(run, engine=name)
        cells = [
            name,
            f"{statistics.median(row['completion_tokens'] / row['seconds'] for row in its):,.1f}",
            ratio(its, base, seconds),
            ratio(its, base, processor_seconds),
            megabytes(its, peak),
        ]
        lines.append(table_row(cells))
    return lines


def _packing(run: list[Row]) -> list[str]:
    lines = [
        f"{run[0]['samples']:,} rows, {run[0]['prompt']:,} positions of prompts, row_tokens {run[0]['row_tokens']:,}.",
        "",
        "| batches of | carry loss | padding | share, prompts aside |",
        "|---|---|---|---|",
    ]
    return lines + [
        table_row([row["engine"], f"{row['carrying']:,}", f"{row['padding']:,}", f"{carrying(row):.2f}"])
        for row in run
    ]


TABLES: dict[str, Callable[[list[Row]], list[str]]] = {
    "throughput": _throughput,
    "loss": _loss,
    "attention": _attention,
    "targets": _targets,
    "packing": _packing,
}
