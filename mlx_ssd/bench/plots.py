"""What is drawn: decode tok/s by configuration, and the frontier. The drawings are the report's (report/figures)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_ssd.bench.measuring import Row
from mlx_ssd.report.figures.frontier import frontier_figure
from mlx_ssd.report.figures.rates import rates_figure
from mlx_ssd.report.figures.svg import standalone
from mlx_ssd.storage import write_atomic


def rates(rows: Sequence[Row], path: Path) -> None:
    write_atomic(path, standalone(rates_figure(rows)))


def frontier(facts: Mapping[str, Any], path: Path) -> None:
    """Nothing where nothing was graded; what an earlier command drew goes then."""
    figure = frontier_figure(facts)
    if figure:
        write_atomic(path, standalone(figure))
    else:
        path.unlink(missing_ok=True)
