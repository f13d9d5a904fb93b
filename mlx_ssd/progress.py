"""One line of progress a stage: done of total, rate, time left, memory.

On a terminal the line is redrawn; elsewhere (a log, a pipe) a plain line appears at most every ten
seconds, so that a night's log stays readable. A supervisor is told too (heartbeat.py).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from mlx_ssd import heartbeat

REDRAW_SECONDS = 0.2
LOG_SECONDS = 10.0


def duration(seconds: float) -> str:
    """4s, 3m05s, 2h10m."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


class Progress:
    def __init__(self, label: str, total: int, done: int = 0, unit: str = ""):
        self.label, self.total, self.done, self.unit = label, total, done, unit
        self._resumed_at = done  # work of an earlier process tells nothing about this one's rate
        self._start = self._shown = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._said: int | None = None  # what was done when the last line was shown
        heartbeat.beat(label, done, total)

    def update(self, done: int, detail: str = "") -> None:
        self.done = done
        heartbeat.beat(self.label, done, self.total)
        now = time.monotonic()
        if now - self._shown >= (REDRAW_SECONDS if self._terminal else LOG_SECONDS):
            self._shown = now
            self._show(detail)

    def line(self, detail: str = "") -> str:
        elapsed = time.monotonic() - self._start
        new = self.done - self._resumed_at
        parts = [f"{self.label}: {self.done:,}/{self.total:,} {self.unit}".rstrip()]
        if new and elapsed > 0:
            parts.append(f"{new / elapsed:.3g}/s")
        if self.done >= self.total:
            parts.append(f"took {duration(elapsed)}")
        elif new:
            parts.append(f"{duration((self.total - self.done) * elapsed / new)} left")
        if detail:
            parts.append(detail)
        parts.append(f"{psutil.Process().memory_info().rss / 1e9:.1f} GB")
        return ", ".join(parts)

    def _show(self, detail: str) -> None:
        self._said = self.done
        end = "" if self._terminal else "\n"
        clear = "\r\x1b[K" if self._terminal else ""
        print(clear + self.line(detail), end=end, file=sys.stderr, flush=True)

    def finish(self, detail: str = "") -> None:
        if self._terminal:
            self._show(detail)
            print(file=sys.stderr, flush=True)
        elif self._said != self.total:  # a log has that line already
            self._show(detail)


@contextmanager
def progress(label: str, total: int, done: int = 0, unit: str = "") -> Iterator[Progress]:
    bar = Progress(label, total, done, unit)
    try:
        yield bar
    finally:
        bar.finish()
