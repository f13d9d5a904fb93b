"""Rows and ratios as a table for the terminal, markdown, JSON lines or CSV. What was not measured is left empty."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

from mlx_ssd.bench.comparing import columns as ratio_columns
from mlx_ssd.bench.comparing import heading
from mlx_ssd.bench.measuring import Row

Cell = Callable[[Row], str]


def _of(name: str, scale: float = 1, digits: int = 1) -> Cell:
    """A figure, or its mean ± standard deviation."""

    def cell(row: Row) -> str:
        value = row.get(name)
        if value is None:
            return ""
        if not isinstance(value, dict):
            return f"{value * scale:,.{digits}f}"
        spread = f" ± {value['std'] * scale:,.{digits}f}" if "std" in value else ""
        return f"{value['mean'] * scale:,.{digits}f}{spread}"

    return cell


def _latency(row: Row) -> str:
    return " / ".join(f"{row['latency_ms'][p]:.3g}" for p in ("p50", "p95", "p99"))


def _bits(row: Row) -> str:
    return str(row["bits"]) if row["quantized"] else f"{row['bits']} full"


COLUMNS: dict[str, Cell] = {
    "model": lambda row: row["model"],
    "bits": _bits,
    "adapter": lambda row: row["adapter"],
    "test": lambda row: f"pp{row['prompt_tokens']}+tg{row['generated_tokens']}",
    "batch": lambda row: str(row["batch"]),
    "load s": _of("load_s", digits=2),
    "first token ms": _of("ttft_s", 1e3),
    "prompt t/s": _of("prompt_tps"),
    "decode t/s": _of("decode_tps"),
    "p50/p95/p99 ms": _latency,
    "MLX peak MB": _of("mlx_peak_bytes", 1e-6),
    "MLX steady MB": _of("mlx_steady_bytes", 1e-6),
    "process peak MB": _of("footprint_peak_bytes", 1e-6, 0),
    "process MB": _of("footprint_bytes", 1e-6, 0),
    "KV MB": _of("kv_bytes", 1e-6),
    "roofline %": _of("roofline_share", 100),
    "J/token": lambda row: f"{row['energy']['joules_per_token']:.3g}" if "energy" in row else "",
}


def columns(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The cells by column, without columns that are empty."""
    cells = {name: [cell(row) for row in rows] for name, cell in COLUMNS.items()}
    return {name: column for name, column in cells.items() if any(column)}


def table(rows: Sequence[Row]) -> str:
    return "\n".join([aligned(columns(rows)), *(f"\n{note}" for note in notes(rows))]) + "\n"


def markdown(rows: Sequence[Row]) -> str:
    return "\n".join([piped(columns(rows)), *(f"\n{note}" for note in notes(rows))]) + "\n"


def aligned(cells: dict[str, list[str]]) -> str:
    """As wide as it must be: a terminal wraps it, a file does not."""
    widths = {name: max(len(name), *map(len, column)) for name, column in cells.items()}
    lines = ["  ".join(name.ljust(widths[name]) for name in cells)]
    for row in zip(*cells.values(), strict=True):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths.values(), strict=True)))
    return "\n".join(line.rstrip() for line in lines)


def piped(cells: dict[str, list[str]]) -> str:
    rows = [f"| {' | '.join(row)} |" for row in zip(*cells.values(), strict=True)]
    return "\n".join([f"| {' | '.join(cells)} |", f"|{'---|' * len(cells)}", *rows])


def compared(comparisons: Sequence[dict[str, Any]], output: str) -> str:
    """Ratios in the format of the rows; CSV has none."""
    if output in ("jsonl", "csv"):
        return json_lines(comparisons) if output == "jsonl" else ""
    lay_out = piped if output == "md" else aligned
    return f"\n{heading(comparisons[0])}\n\n{lay_out(ratio_columns(comparisons))}\n"


def json_lines(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def comma_separated(rows: Sequence[Row]) -> str:
    """A column a figure, `decode_tps.mean`; without the series."""
    flat = [dict(_flat({key: value for key, value in row.items() if key != "series"})) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return file.getvalue()


FORMATS = {"table": table, "md": markdown, "jsonl": json_lines, "csv": comma_separated}


def notes(rows: Sequence[Row]) -> list[str]:
    """What the figures were made on."""
    made = dict.fromkeys(_made_on(row) for row in rows)
    return list(made)


def _made_on(row: Row) -> str:
    machine, versions, rate = row["machine"], row["versions"], row["bandwidth"]
    packages = ", ".join(f"{name} {versions[name]}" for name in ("mlx", "mlx-lm") if name in versions)
    return (
        f"{machine['chip']}, {machine['cores']} cores, {machine['memory_bytes'] / 1e9:.0f} GB, {machine['system']}; "
        f"{packages}; roofline: {rate['bytes_per_second'] / 1e9:.0f} GB/s ({rate['source']})"
    )


def _flat(value: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, inner in value.items():
        found += _flat(inner, f"{before}{key}.") if isinstance(inner, dict) else [(before + key, inner)]
    return found
