"""What computing may take of the machine's memory, and MLX kept to it."""

from __future__ import annotations

import sys

from mlx_ssd import heartbeat, machine
from mlx_ssd.budget import usable_bytes
from mlx_ssd.machine import memory

CACHE_SHARE = 0.1  # of the working set: what is freed but not yet returned


def working_set() -> int:
    """Bytes that weights, caches and working space may take together: a share of what macOS recommends for the GPU, or
    of a Linux machine's memory, and no more than a control group or a limit of this process leaves room for."""
    limit, recommended = memory.limit_bytes(), None
    if sys.platform == "darwin":
        import mlx.core as mx

        recommended = mx.device_info().get("max_recommended_working_set_size")
    return usable_bytes(machine.describe() | {"memory_bytes": limit}, recommended and min(recommended, limit))


def keep_mlx_within() -> None:
    """Set MLX's own limits by the working set, or by the supervisor's, which may be lower.

    Beyond the first MLX waits with what it would compute side by side, beyond the second it returns what is freed, and
    on a Mac no more than the third is held in memory for the GPU.
    """
    import mlx.core as mx

    most = working_set()
    if heartbeat.cap is not None:
        most = min(most, heartbeat.cap)
    mx.set_memory_limit(most)
    mx.set_cache_limit(int(CACHE_SHARE * most))
    if mx.metal.is_available():
        mx.set_wired_limit(most)
