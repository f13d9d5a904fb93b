"""What a unit has cost, over all the processes that worked for it: it may be killed, and go on, many times."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlx_ssd import machine
from mlx_ssd.storage import read_json, write_json

KEEP_SECONDS = 10.0  # a kill loses no more of the count

NAMES = ("seconds", "processes", "peak_rss_bytes", "peak_mlx_bytes")

Cost = dict[str, Any]


@contextlib.contextmanager
def counted(path: Path) -> Iterator[Callable[[], Cost]]:
    """Yield a function that gives the cost so far: {"seconds", "processes", "peak_rss_bytes", and where MLX was used
    "peak_mlx_bytes"}, the last two the highest of any process. `path` holds it while the body works, and held what the
    processes before this one have cost."""
    kept = read_json(path) if path.exists() else {}
    before = {name: kept[name] for name in NAMES if name in kept}
    start, over = time.monotonic(), threading.Event()

    def cost() -> Cost:
        seconds = round(before.get("seconds", 0.0) + time.monotonic() - start, 2)
        peaks = {name: max(peak, before.get(name, 0)) for name, peak in _peaks().items()}
        return before | peaks | {"seconds": seconds, "processes": before.get("processes", 0) + 1}

    def keep() -> None:
        with contextlib.suppress(OSError):  # a full disk is the body's to name
            write_json(path, cost())

    def keep_on() -> None:
        keep()
        while not over.wait(KEEP_SECONDS):
            keep()

    keeper = threading.Thread(target=keep_on, daemon=True)
    keeper.start()
    try:
        yield cost
    finally:
        over.set()
        keeper.join()
        keep()


def _peaks() -> dict[str, int]:
    found = {"peak_rss_bytes": machine.peak_rss_bytes()}
    if peak := getattr(sys.modules.get("mlx.core"), "get_peak_memory", None):
        found["peak_mlx_bytes"] = peak()
    return found
