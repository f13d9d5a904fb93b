"""What the machine draws from its battery, where it runs on one: a Mac says so without root."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass

COMMAND = ("/usr/sbin/ioreg", "-rn", "AppleSmartBattery")


@dataclass(frozen=True)
class Reading:
    watts: float  # of the whole machine
    at: float  # seconds since the epoch; the counters are renewed every so often, and not before each look


def read() -> Reading | None:
    """None on a charger, without a battery, and on other systems than macOS."""
    if sys.platform != "darwin":
        return None
    answer = subprocess.run(COMMAND, capture_output=True, text=True, check=False)
    return parse(answer.stdout)


def parse(text: str) -> Reading | None:
    """ioreg's lines `"Voltage" = 12345` in mV and mA; a current that leaves the battery is negative, in 64 bits."""
    found = dict(re.findall(r'^\s*[|]?\s*"(\w+)" = (\w+)\s*$', text, re.MULTILINE))
    try:
        millivolts, current, at = (int(found[key]) for key in ("Voltage", "InstantAmperage", "UpdateTime"))
    except (KeyError, ValueError):
        return None
    milliamperes = current - 2**64 if current >= 2**63 else current
    if found.get("ExternalConnected") != "No" or milliamperes >= 0:
        return None
    return Reading(-milliamperes * millivolts / 1e6, at)


def watts(readings: list[Reading | None], since: float) -> float | None:
    """Mean of those that were renewed after `since`; None where none was: the work was too short to be seen."""
    fresh = {reading for reading in readings if reading and reading.at >= since}
    return sum(reading.watts for reading in fresh) / len(fresh) if fresh else None
