"""How fast a Mac reads and multiplies, by the name of its chip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Of bfloat16 matrix work. Prefill of 4-bit Qwen3-4B is published at 1,622 tokens/s on an M4 Max (BENCHMARKS.md), which
# is 0.29, and at 615 on an M3 Pro (issue 1569): 0.25 to 0.32. An M5 should do better: its neural accelerators are not
# counted.
PREFILL_FLOPS_PER_GPU_CORE = 0.25e12
# mlx-lm's LORA.md: 250 tokens/s, 4 of 32 layers of Mistral-7B, M1 Max.
TRAINING_FLOPS_PER_GPU_CORE = 0.13e12

# Cores of the CPU, GB/s, cores of the GPU: Apple's technical specifications. Where CPU cores do not tell
# two GPUs apart the smaller is taken.
CHIPS: dict[str, tuple[tuple[int, float, int], ...]] = {
    "Apple M1": ((8, 68.25, 7),),
    "Apple M1 Pro": ((8, 200, 14), (10, 200, 14)),
    "Apple M1 Max": ((10, 400, 24),),
    "Apple M1 Ultra": ((20, 800, 48),),
    "Apple M2": ((8, 100, 8),),
    "Apple M2 Pro": ((10, 200, 16), (12, 200, 19)),
    "Apple M2 Max": ((12, 400, 30),),
    "Apple M2 Ultra": ((24, 800, 60),),
    "Apple M3": ((8, 100, 8),),
    "Apple M3 Pro": ((11, 150, 14), (12, 150, 18)),
    "Apple M3 Max": ((14, 300, 30), (16, 400, 40)),
    "Apple M3 Ultra": ((28, 819, 60), (32, 819, 80)),
    "Apple M4": ((8, 120, 8), (10, 120, 8)),
    "Apple M4 Pro": ((12, 273, 16), (14, 273, 20)),
    "Apple M4 Max": ((14, 410, 32), (16, 546, 40)),
    "Apple M5": ((10, 153, 8),),
    "Apple M5 Pro": ((15, 307, 16), (18, 307, 20)),
    "Apple M5 Max": ((18, 460, 32),),
}


@dataclass(frozen=True)
class Chip:
    bytes_per_second: float
    gpu_cores: int

    @property
    def prefill_flops(self) -> float:
        return self.gpu_cores * PREFILL_FLOPS_PER_GPU_CORE

    @property
    def training_flops(self) -> float:
        return self.gpu_cores * TRAINING_FLOPS_PER_GPU_CORE


def chip_of(machine: Mapping[str, Any]) -> Chip | None:
    """The chip that machine.describe() names; None for one whose speed is not known."""
    variants = CHIPS.get(machine["chip"])
    if not variants:
        return None
    _, gigabytes, gpu_cores = next((v for v in variants if v[0] == machine.get("cores")), variants[0])
    return Chip(gigabytes * 1e9, gpu_cores)
