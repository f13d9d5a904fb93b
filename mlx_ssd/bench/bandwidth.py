"""How fast this machine reads memory: what its chip is said to do, or else a copy that was timed here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlx_ssd.bench.configurations import Load
from mlx_ssd.budget import chip_of
from mlx_ssd.budget.model_size import read_bytes

TABLE, COPY = "chip table", "measured copy"
BYTES = 256 * 2**20  # of the array that is copied: no cache holds it
TIMES = 5


def of_table(machine: Mapping[str, Any]) -> dict[str, Any] | None:
    """{"bytes_per_second", "source"} of a chip that budget/chips.py knows, else None."""
    chip = chip_of(machine)
    return {"bytes_per_second": chip.bytes_per_second, "source": TABLE} if chip else None


def measured() -> dict[str, Any]:
    """The same of the fastest of some copies: on the GPU where MLX has one, else on all cores.

    A copy reads and writes its bytes once each; what a cache reads beside that before it is written to is not counted.
    """
    import mlx.core as mx

    seconds = _on_gpu() if mx.metal.is_available() else _on_cores()
    return {"bytes_per_second": 2 * BYTES / seconds, "source": COPY}


def _on_gpu() -> float:
    import mlx.core as mx

    array = mx.random.normal((BYTES // 4,))
    mx.eval(array)
    return _fastest(lambda: mx.eval(array + 1))


def _on_cores() -> float:
    import numpy as np

    source, target = np.ones(BYTES // 8), np.zeros(BYTES // 8)
    workers = os.cpu_count() or 1
    parts = list(zip(np.array_split(target, workers), np.array_split(source, workers), strict=True))
    with ThreadPoolExecutor(workers) as pool:  # NumPy lets go of the interpreter while it copies
        return _fastest(lambda: list(pool.map(lambda part: np.copyto(*part), parts)))


def _fastest(copy: Callable[[], Any]) -> float:
    copy()
    seconds = []
    for _ in range(TIMES):
        started = time.perf_counter()
        copy()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def step_bytes(loaded: Mapping[str, Any], kv_bytes: float, load: Load) -> float:
    """What a decoding step reads, in the middle of a generation: weights, as the plan reckons them, and the context so
    far.

    loaded: what `load` answers. kv_bytes: of all rows at the end; taken to grow evenly, as plain attention's does.
    """
    weights = (loaded[name] for name in ("weight_bytes", "looked_up_bytes", "expert_bytes", "expert_share"))
    context = (load.prompt + load.generated / 2) / (load.prompt + load.generated)
    return read_bytes(*weights, load.batch) + kv_bytes * context
