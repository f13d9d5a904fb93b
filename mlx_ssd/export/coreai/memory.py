"""Whether a model can be converted in this machine's memory, before hours are spent on it."""

from __future__ import annotations

from mlx_ssd.export import memory
from mlx_ssd.export.coreai.runtime import WIDE_SUMS
from mlx_ssd.export.memory import parameters
from mlx_ssd.weights import WeightFiles

# Peaks in multiples of the weights in float16, measured (docs/export.md). Writing: the tensors of PyTorch and of the
# program, or the program and its file. Checking on Linux: the program, another for its sums, and the file.
WRITING = {"float16": 2.1, "adapters": 2.1, "float32": 4.2, "int4": 2.1}
CHECKING_ON_LINUX = {"float16": 3.5, "adapters": 3.5, "float32": 4.2, "int4": 2.3}
BESIDE = 1.0e9  # Python, PyTorch and the graph


def needed(weights: WeightFiles, precision: str) -> float:
    """Bytes."""
    half = 2 * parameters(weights)
    return BESIDE + half * max(WRITING[precision], CHECKING_ON_LINUX[precision] if WIDE_SUMS else 0)


def refuse_beyond(weights: WeightFiles, precision: str) -> None:
    """Raises BadInput where the machine has less."""
    what = f"convert in {precision} and verify"
    memory.refuse_beyond(parameters(weights), needed(weights, precision), what, "mlx")
