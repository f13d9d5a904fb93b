"""Where the machine's power comes from."""

from __future__ import annotations

import psutil


def on_battery() -> float | None:
    """The charge in percent while a battery is what the machine runs on, else None."""
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if battery is None or battery.power_plugged is not False:
        return None
    return float(battery.percent)
