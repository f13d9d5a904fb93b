"""What keeps a night's work from ending: the battery, a slower mode, heat, sleep."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mlx_ssd.doctor.finding import OK, WARN, Finding, ask
from mlx_ssd.machine.power import on_battery

CAFFEINATE = Path("/usr/bin/caffeinate")


def power() -> Finding:
    charge = on_battery()
    if charge is not None:
        return Finding(WARN, f"on battery, {charge:.0f} %", "plug the machine in before long work")
    if sys.platform != "darwin":
        return Finding(OK, "not on battery")
    found = settings(ask("pmset", "-g"))
    if 1 in (found.get("lowpowermode"), found.get("powermode")):  # macOS 15 calls it powermode where there are three
        return Finding(WARN, "Low Power Mode is on", "turn it off in System Settings, Battery: it slows the GPU down")
    speed = re.search(r"CPU_Speed_Limit\s*=\s*(\d+)", ask("pmset", "-g", "therm"))
    if speed and int(speed[1]) < 100:
        return Finding(WARN, f"held at {speed[1]} % of its speed, by heat", "let it cool, and give it air")
    return Finding(OK, "not on battery, no Low Power Mode, not slowed by heat")


def sleep() -> Finding | None:
    """Of a Mac: a run keeps it awake, but for a closed lid."""
    if sys.platform != "darwin":
        return None
    found = settings(ask("pmset", "-g"))
    if "sleep" not in found:
        return Finding(WARN, "not known: pmset gave no answer", "keep the lid open while it works")
    minutes = found["sleep"]
    idle = f"sleeps when idle for {minutes} min" if minutes else "never sleeps when idle"
    if minutes and not CAFFEINATE.exists():
        return Finding(WARN, f"{idle}; no {CAFFEINATE} to keep it awake", "turn sleep off: sudo pmset -c sleep 0")
    return Finding(OK, f"{idle}; a run keeps it awake, with the lid open")


def settings(text: str) -> dict[str, int]:
    """The numbers of `pmset -g`, by name."""
    lines = (re.match(r"\s*(\w+)\s+(\d+)\b", line) for line in text.splitlines())
    return {line[1]: int(line[2]) for line in lines if line}
