"""Whether a model can be exported in this machine's memory, asked before hours are spent on it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mlx_ssd.errors import BadInput
from mlx_ssd.machine import memory

if TYPE_CHECKING:
    from mlx_ssd.export.source import Source
    from mlx_ssd.weights import WeightFiles

WHOLE = 4  # bytes a parameter of a model in float32: what is written is read by one, and held against another after it
SPARE_BYTES = 4_000_000_000  # Python, its libraries, and the largest tensor in float32 twice


def parameters(weights: WeightFiles) -> int:
    return sum(math.prod(weights.shape(name)) for name in weights.names)


def refuse_beyond(count: int, needed: float, what: str, instead: str) -> None:
    """Raises BadInput where there are less than `needed` bytes for this process. `what` is to be done with `count`
    parameters; `instead`: targets that take less."""
    there = memory.limit_bytes()
    if needed > there:
        raise BadInput(
            f"{count / 1e9:.1f} billion parameters take about {needed / 1e9:.0f} GB of memory to {what}; there are "
            f"{there / 1e9:.0f} GB here; do it on a larger machine, or take --target {instead}"
        )


def refuse_whole(source: Source, instead: str) -> None:
    """Raises BadInput where the whole model in float32, by which an export is verified, cannot fit."""
    from mlx_ssd.weights import WeightFiles

    count = parameters(WeightFiles(source.base.path))
    refuse_beyond(count, WHOLE * count + SPARE_BYTES, "verify in float32", instead)
