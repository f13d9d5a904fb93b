"""How patient a supervisor is."""

from __future__ import annotations

import os
from dataclasses import dataclass

from mlx_ssd.errors import BadInput

TRIES, HANG, RESERVE = "MLX_SSD_TRIES", "MLX_SSD_HANG_SECONDS", "MLX_SSD_DISK_RESERVE_MB"
BUSY = 6  # a process that computes may be silent so many times as long as one that does nothing


@dataclass(frozen=True)
class Bounds:
    """tries: failures without progress between them after which to give up. idle_seconds: without a sign of life and
    without processor time, after which a process hangs; busy_seconds: without a sign alone. check_seconds: between two
    looks at it, the disk and the battery. disk_reserve: bytes that stay free."""

    tries: int = 3
    idle_seconds: float = 600.0
    check_seconds: float = 5.0
    disk_reserve: int = 200_000_000

    @property
    def busy_seconds(self) -> float:
        return BUSY * self.idle_seconds

    @classmethod
    def from_environment(cls) -> Bounds:
        """Raises BadInput for what is no number, or none above 0."""
        idle = _number(HANG, cls.idle_seconds)
        return cls(
            tries=max(1, round(_number(TRIES, cls.tries))),
            idle_seconds=idle,
            check_seconds=min(cls.check_seconds, idle / 4),
            disk_reserve=int(1e6 * _number(RESERVE, cls.disk_reserve / 1e6)),
        )


def _number(name: str, usual: float) -> float:
    text = os.environ.get(name, "")
    try:
        number = float(text or usual)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise BadInput(f"{name}={text}: give a number above 0, or leave it away for {usual:g}")
    return number
