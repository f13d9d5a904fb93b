"""What Metal says of this Mac's GPU, asked in a process of its own: where MLX cannot work, it ends the process."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache

from mlx_ssd import machine

PATIENCE = 10.0  # seconds: MLX is slow to start for the first time after it was installed
PROBE = """
import json
import mlx.core as mx
assert mx.sum(mx.ones(64)).item() == 64
gpu = mx.metal.is_available()
print(json.dumps({"gpu": gpu, "bytes": mx.device_info().get("max_recommended_working_set_size") if gpu else None}))
"""


def probe(patience: float) -> subprocess.CompletedProcess[str]:
    """Whether MLX computes; it prints {"gpu": bool, "bytes": what macOS recommends that the GPU takes, or null}.

    Raises subprocess.TimeoutExpired after so many seconds.
    """
    command = [sys.executable, "-P", "-c", PROBE]
    environment = machine.stage_environment()
    return subprocess.run(command, capture_output=True, text=True, timeout=patience, env=environment)


@cache
def recommended_bytes() -> int | None:
    """The working set that Metal recommends here, as iogpu.wired_limit_mb or a virtual machine has it; None where there
    is no Metal, or it does not say."""
    if sys.platform != "darwin":
        return None
    try:
        found = json.loads(probe(PATIENCE).stdout)["bytes"]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) and found > 0 else None
