"""An analysis on the terminal: a small table, and what was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mlx_ssd.analysis.store import LABELS


def lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """lock, between and fork: their share, tail mass and the head's entropy before and after."""
    header = ("", "share", "tail mass %", "change", "head, nats", "change")
    rows = [header, *(_row(label, summary["labels"][label]) for label in LABELS), _row("all", summary["all"])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    yield f"{summary['arm']}, before -> after"
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join((first.ljust(widths[0]), *cells)).rstrip()
    yield from summary["finding"]


def _row(label: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    if not found["tokens"]:
        return label, "0 %", "-", "-", "-", "-"
    return (
        label,
        f"{found['share']:.1%}",
        *_before_after(found, "tail_mass", 100, ".2f"),
        *_before_after(found, "head", 1, ".3f"),
    )


def _before_after(found: Mapping[str, Any], metric: str, unit: float, digits: str) -> tuple[str, str]:
    if any(metric not in found[side] for side in ("base", "student")):
        return "-", "-"
    values = (format(unit * found[side][metric], digits) for side in ("base", "student"))
    change = found["difference"].get(metric)
    if not change:
        return " -> ".join(values), "-"
    mean, low, high = (format(unit * change[name], f"+{digits}") for name in ("mean", "low", "high"))
    return " -> ".join(values), f"{mean} [{low}, {high}]"
