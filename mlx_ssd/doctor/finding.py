"""What a check says, and how the system is asked."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "fail"
PATIENCE = 2.0  # seconds


@dataclass(frozen=True)
class Finding:
    """status: "ok", "warn" (it works, worse or only in part) or "fail" (it does not work). `found` is what is there;
    `mend` how to mend it, in one sentence, empty where all is well."""

    status: str
    found: str
    mend: str = ""


def ask(*command: str) -> str:
    """What a command of the system prints; "" where there is none, it fails, or it takes longer than PATIENCE."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=PATIENCE, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
