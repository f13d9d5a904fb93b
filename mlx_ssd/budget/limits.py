"""How much of a machine's memory a run is trusted with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MEMORY_SHARE = 0.65  # of a machine's memory, where nobody says what may be used of it
# Python, its libraries and what they allocate: little of a machine's memory, half of the 600 MB of a control group
# (`python -m benchmarks.reliability limit`).
OWN_BYTES = 350 * 10**6
# Of a Mac's, what Metal recommends as the largest working set (MTLDevice.recommendedMaxWorkingSetSize, as llama.cpp's
# logs show it): 5,461 MiB of 8 GiB, 10,923 of 16, 21,845 of 32; 27,648 of 36, 49,152 of 64, 98,304 of 128.
METAL_SHARE, METAL_SHARE_OF_MUCH, MUCH = 2 / 3, 3 / 4, 36 * 2**30
RESERVE = 0.1  # of the working set: what is freed but not yet returned, and the rest of the system


def is_mac(machine: Mapping[str, Any]) -> bool:
    return str(machine["chip"]).startswith("Apple")


def usable_bytes(machine: Mapping[str, Any], recommended: int | None = None) -> int:
    """Bytes that weights, caches and working space may take on machine.describe().

    recommended: the working set that Metal itself names, where it can be asked; machine["recommended_bytes"] is the
    same, of a description that was made for this machine.
    """
    recommended = recommended or machine.get("recommended_bytes")
    if not recommended:
        memory = machine["memory_bytes"]
        if is_mac(machine):
            recommended = (METAL_SHARE_OF_MUCH if memory >= MUCH else METAL_SHARE) * memory
        else:
            recommended = max(min(MEMORY_SHARE * memory, memory - OWN_BYTES), 0)
    return int((1 - RESERVE) * recommended)
