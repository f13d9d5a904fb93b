"""What must hold around the work: room on the disk, and power."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from mlx_ssd.errors import BadInput, SsdError, WorkFailed
from mlx_ssd.machine import power

LOWEST_BATTERY = 10  # percent


class Conditions:
    """`say` is told, once each time it changes, whether the machine runs on battery."""

    def __init__(self, directory: Path, disk_reserve: int, say: Callable[[str], None]):
        self._directory, self._reserve, self._say = directory, disk_reserve, say

    def failed(self) -> SsdError | None:
        """Why the work cannot begin or go on; the sentence has no end."""
        free = shutil.disk_usage(self._directory).free
        if free < self._reserve:
            return BadInput(
                f"no space left to work in {self._directory}: {free / 1e6:,.0f} MB are free on its disk, and "
                f"{self._reserve / 1e6:,.0f} are kept free; free some disk space, then run the same command again"
            )
        charge = power.on_battery()
        _Battery.tell(charge, self._say)
        if charge is not None and charge < LOWEST_BATTERY:
            return WorkFailed(
                f"the battery is at {charge:.0f} %; plug the machine in, then run the same command again: it goes on "
                "where it stopped"
            )
        return None


class _Battery:
    """One for the process: a run has many stages, and the battery is news only once."""

    on = False

    @classmethod
    def tell(cls, charge: float | None, say: Callable[[str], None]) -> None:
        if (charge is not None) == cls.on:
            return
        cls.on = charge is not None
        if charge is None:
            say("note: the machine is plugged in again")
        else:
            say(
                f"note: the machine runs on battery ({charge:.0f} %): slower on some machines, and below "
                f"{LOWEST_BATTERY} % the work stops, and the same command goes on"
            )
