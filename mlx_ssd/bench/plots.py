"""What is drawn: decode tok/s by configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlx_ssd.bench import svg
from mlx_ssd.bench.measuring import Row
from mlx_ssd.storage import write_atomic


def rates(rows: Sequence[Row], path: Path) -> None:
    """A bar a row, with one standard deviation to each side."""
    points = []
    for row in rows:
        of, std = row["decode_tps"]["mean"], row["decode_tps"].get("std")
        parts = [row["model"], f"{row['bits']} bit", f"pp{row['prompt_tokens']}"]
        parts += [f"adapter {row['adapter']}"] * (row["adapter"] != "off")
        parts += [f"batch {row['batch']}"] * (row["batch"] > 1)
        label = ", ".join(parts)
        points.append(svg.Point(label, 0, of, *(() if std is None else (of - std, of + std))))
    write_atomic(path, svg.page([svg.bars(points, "Decoding", "tokens/s")]))
