"""Contestants take turns in one process, every round in another order; what one run of one costs."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np

Contestant = TypeVar("Contestant")
Result = TypeVar("Result")


def turns(contestants: Sequence[Contestant], rounds: int) -> Iterator[tuple[int, Contestant]]:
    """(round, contestant)."""
    for number in range(rounds):
        first = number % len(contestants)
        for contestant in (*contestants[first:], *contestants[:first]):
            yield number, contestant


def clocks() -> np.ndarray:
    """Seconds of the clock, and of processor time."""
    return np.array([time.perf_counter(), time.process_time()])


def seconds_of(clocked: np.ndarray) -> dict[str, float]:
    """The fields of a row."""
    return {"seconds": round(float(clocked[0]), 5), "processor_seconds": round(float(clocked[1]), 5)}


def measure(work: Callable[[], Result]) -> tuple[Result, dict[str, Any]]:
    """What `work` gives, and the fields of a row. weight_bytes is what was held before it."""
    gc.collect()
    mx.clear_cache()
    mx.reset_peak_memory()
    before, load = mx.get_active_memory(), os.getloadavg()[0]
    started = clocks()
    result = work()
    took = clocks() - started
    return result, {
        **seconds_of(took),
        "peak_bytes": mx.get_peak_memory(),
        "weight_bytes": before,
        "load": round(load, 1),
    }
