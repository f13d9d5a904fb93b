"""The figures that docs/benchmarks.md quotes, from the rows of training.jsonl."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.journal import Row
from benchmarks.rounds import above_weights, newest_runs, pick, ratio, seconds, wanted_table, whole_rounds
from benchmarks.training import attention, head
from benchmarks.training.experiments import BEST, DEFAULTS
from benchmarks.training.head import FULL, OURS
from benchmarks.training.report import carrying, positions, seconds_a_position


def table(rows: Sequence[Row]) -> str:
    """Markdown: what was measured, against what, how much was wanted, and the median [least, most] of the rounds."""
    runs = newest_runs(rows)
    lines = [
        line
        for experiment, lines_of in _LINES.items()
        for run in runs
        if run[0]["experiment"] == experiment
        for line in lines_of(run)
    ]
    return wanted_table(lines)


def _throughput(run: list[Row]) -> Iterator[tuple[str, ...]]:
    run = whole_rounds(run, "engine")
    ours = pick(run, engine=OURS)
    for rival in (DEFAULTS, BEST):
        theirs = pick(run, engine=rival)
        yield (
            f"completion tokens/s, {run[0]['model']}",
            f"{rival}, batches of {theirs[0]['batch_size']}",
            "2",
            ratio(theirs, ours, seconds),
        )
        yield "of that, by fewer positions", "the same", "", ratio(theirs, ours, positions)
        yield "of that, by less time a position", "the same", "", ratio(theirs, ours, seconds_a_position)


def _loss(run: list[Row]) -> Iterator[tuple[str, ...]]:
    case = head.CASES[0].name
    run = pick(whole_rounds(run, "case", "engine"), case=case)
    ours, full = pick(run, engine=OURS), pick(run, engine=FULL)
    yield f"memory of the loss, {case}", FULL, "at most 0.1", ratio(ours, full, above_weights)
    yield "time of the same", FULL, "at most 1.1", ratio(ours, full, seconds)


def _attention(run: list[Row]) -> Iterator[tuple[str, ...]]:
    case = attention.CASES[-1].name
    run = pick(whole_rounds(run, "case", "engine"), case=case)
    ours, plain = pick(run, engine=attention.OURS), pick(run, engine=attention.PLAIN)
    yield f"memory of attention, {case}", plain[0]["engine"], "", ratio(ours, plain, above_weights)
    yield "time of the same", plain[0]["engine"], "", ratio(ours, plain, seconds)


def _targets(run: list[Row]) -> Iterator[tuple[str, ...]]:
    run = whole_rounds(run, "engine")
    soft, tokens = pick(run, engine="distribution"), pick(run, engine="tokens")
    yield f"a step with soft targets, {run[0]['model']}", "with tokens", "at most 1.6", ratio(soft, tokens, seconds)


def _packing(run: list[Row]) -> Iterator[tuple[str, ...]]:
    share = {row["engine"]: f"{carrying(row):.2f}" for row in run}
    others = ", ".join(f"{name}: {value}" for name, value in share.items() if name != "ours, packed")
    yield "tokens that carry loss, of those computed", others, "0.9", share["ours, packed"]


_LINES = {"throughput": _throughput, "loss": _loss, "attention": _attention, "targets": _targets, "packing": _packing}
