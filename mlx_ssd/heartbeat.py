"""The line between a process that computes and the one that supervises it: signs of life up, a bound on memory down.

Two environment variables hold it, and a process takes them out of its environment, so that what it starts itself has
no part in it. On the pipe goes one JSON object a line: how far the work is, that it is alive, or the budget that it has
(mlx_ssd/supervision reads them). Without a supervisor all of this does nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any

SUPERVISOR = "MLX_SSD_SUPERVISOR"  # its process id, and the descriptor of a pipe to it: 1234:5
MEMORY = "MLX_SSD_MEMORY_BYTES"  # no more than this, after an attempt that ran out
BEAT_SECONDS = 0.2

cap: int | None = None
_pipe: int | None = None
_beaten = _lived = 0.0  # when the last of each went out


def attach() -> int | None:
    """Take up the line, once, before any other process is started. The supervisor's process id, if there is one."""
    global cap, _pipe
    bound, supervisor = os.environ.pop(MEMORY, None), os.environ.pop(SUPERVISOR, None)
    if supervisor is None:
        return None
    cap = int(bound) if bound else None
    parent, _, pipe = supervisor.partition(":")
    _pipe = int(pipe)
    os.set_inheritable(_pipe, False)
    os.set_blocking(_pipe, False)
    _tell(attached=True)
    return int(parent)


def beat(label: str, done: int, total: int) -> None:
    """The work called `label` goes on: so much of it is done. Costs nothing when called often."""
    global _beaten
    now = time.monotonic()
    if _pipe is None or now - _beaten < BEAT_SECONDS:
        return
    _beaten = now
    _tell(at=label, done=done, total=total)


def alive() -> None:
    """A sign of life within a step of the work: nothing more is done than before. Costs nothing when called often.

    On a GPU a step may take an hour in which the processor does next to nothing. It is told apart from progress, which
    alone shows that another try leads anywhere; and it is timed apart, so that it never takes a mark's place.
    """
    global _lived
    now = time.monotonic()
    if _pipe is None or now - _lived < BEAT_SECONDS:
        return
    _lived = now
    _tell(alive=True)


def budget(memory: int) -> int:
    """The bytes that computing may take where `memory` were asked for or are there: less after it ran out."""
    allowed = memory if cap is None else min(memory, cap)
    _tell(budget=allowed)
    return allowed


def _tell(**facts: Any) -> None:
    if _pipe is None:
        return
    line = json.dumps(facts).encode() + b"\n"
    # A supervisor that is stopped does not read; one that is gone takes us with it. Neither is a reason to fail.
    with contextlib.suppress(OSError):
        os.write(_pipe, line)
