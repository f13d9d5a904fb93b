"""Figures as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlx_ssd.report.figures.figure import Figure
from mlx_ssd.report.figures.svg import standalone, title_id
from mlx_ssd.storage import write_atomic


def write_figures(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """folder/NAME.svg each, dark on white; what was written. Figures of an earlier call that are no longer among them
    are deleted; files of other origin stay."""
    written = [folder / f"{figure.name}.svg" for figure in figures]
    for path, figure in zip(written, figures, strict=True):
        write_atomic(path, standalone(figure))
    for path in set(folder.glob("*.svg")) - set(written):
        if f'aria-labelledby="{title_id(path.stem)}"'.encode() in path.read_bytes()[:500]:
            path.unlink(missing_ok=True)
    return written
