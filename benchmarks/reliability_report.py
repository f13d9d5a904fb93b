"""The rows of `python -m benchmarks.reliability` as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.journal import Row

KEYS = {"faults": ("round", "stage", "fault"), "limit": ("limit_bytes", "asked_gb")}


def latest(rows: Sequence[Row], experiment: str) -> list[Row]:
    """The newest row of each measurement."""
    found = {tuple(row[key] for key in KEYS[experiment]): row for row in rows if row["experiment"] == experiment}
    return list(found.values())


def render(rows: Sequence[Row]) -> str:
    return "\n".join([*_faults(latest(rows, "faults")), *_limit(latest(rows, "limit"))]).rstrip() + "\n"


def _faults(rows: list[Row]) -> Iterator[str]:
    if not rows:
        return
    yield from ("## Faults", "")
    yield "| fault | runs | went on by itself | went on by the same command | as without a fault | processes left |"
    yield "|---|---|---|---|---|---|"
    for fault in dict.fromkeys(row["fault"] for row in rows):
        own = [row for row in rows if row["fault"] == fault]
        yield f"| {fault} | {_counts(own)} |"
    yield f"| **all** | {_counts(rows)} |"
    yield ""
    stages = ", ".join(dict.fromkeys(row["stage"] for row in rows))
    missed = sum(not row["hit"] for row in rows)
    yield f"Stages: {stages}. In {missed} runs the stage had ended before the fault."
    yield from _made(rows[0])


def _counts(rows: list[Row]) -> str:
    alone = sum(row["exit_codes"][0] == 0 for row in rows)
    second = sum(row["exit_codes"][0] != 0 and not any(row["exit_codes"][1:]) for row in rows)
    same = sum(not row["differs"] for row in rows)
    return " | ".join(str(count) for count in (len(rows), alone, second, same, sum(row["orphans"] for row in rows)))


def _limit(rows: list[Row]) -> Iterator[str]:
    if not rows:
        return
    yield from ("## A limit of memory", "")
    yield "| limit [MB] | budget asked for | peak [MB] | killed by the kernel | tries | samples | exit code |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        asked = "what there is" if row["asked_gb"] is None else f"{row['asked_gb']} GB"
        limit, peak = (row[name] >> 20 for name in ("limit_bytes", "peak_bytes"))
        cells = (limit, asked, peak, row["kills"], row["failures"] + 1, row["samples"], row["exit_codes"][0])
        yield f"| {' | '.join(map(str, cells))} |"
    yield ""
    yield from _made(rows[0])


def _made(row: Row) -> Iterator[str]:
    versions = ", ".join(f"{name} {row['versions'][name]}" for name in ("python", "mlx", "mlx-lm"))
    yield f"`{row['command']}`, {row['started']}, {row['machine']['chip']}, {row['machine']['system']}; {versions}."
    yield ""
