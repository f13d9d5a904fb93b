"""Whether a model can be converted in this machine's memory, before hours are spent on it."""

from __future__ import annotations

import math

from mlx_ssd import machine
from mlx_ssd.errors import BadInput
from mlx_ssd.export.coreai.runtime import WIDE_SUMS
from mlx_ssd.weights import WeightFiles

# Peaks in multiples of the weights in float16, measured (docs/export.md). Writing: the tensors of PyTorch and of the
# program, or the program and its file. Checking on Linux: the program, another for its sums, and the file.
WRITING = {"float16": 2.1, "adapters": 2.1, "float32": 4.2, "int4": 2.1}
CHECKING_ON_LINUX = {"float16": 3.5, "adapters": 3.5, "float32": 4.2, "int4": 2.3}
BESIDE = 1.0e9  # Python, PyTorch and the graph


def needed(weights: WeightFiles, precision: str) -> float:
    """Bytes."""
    half = 2 * sum(math.prod(weights.shape(name)) for name in weights.names)
    return BESIDE + half * max(WRITING[precision], CHECKING_ON_LINUX[precision] if WIDE_SUMS else 0)


def refuse_beyond(weights: WeightFiles, precision: str) -> None:
    """Raises BadInput where the machine has less."""
    need, has = needed(weights, precision), int(machine.describe()["memory_bytes"])
    if need > has:
        raise BadInput(
            f"--precision {precision} of this model needs {need / 1e9:.0f} GB of memory, and this machine has "
            f"{has / 1e9:.0f} GB; convert it on a larger one, or take --target mlx or gguf"
        )
