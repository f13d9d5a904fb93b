"""Try, say what happened, try again with less where memory ran out, and give up when nothing moves.

Every process goes on from what the one before it left in the run: journals, checkpoints. So it is the work's own
progress, beyond the furthest that any of them came, that tells whether trying again leads anywhere.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_ssd import heartbeat, machine
from mlx_ssd.errors import WorkFailed
from mlx_ssd.machine import memory
from mlx_ssd.supervision.bounds import Bounds
from mlx_ssd.supervision.causes import Cause, cause_of, is_failure
from mlx_ssd.supervision.conditions import Conditions
from mlx_ssd.supervision.watch import End, watch

LESS, STILL_LESS = 0.75, 0.5  # of the budget, after it ran out; and where it then came no further
AGAIN = "the same command goes on where it stopped"


@dataclass(frozen=True)
class Failure:
    """A process that was survived: the sentence, and the facts for the manifest."""

    sentence: str
    facts: dict[str, Any]


def supervise(
    command: list[str],
    lock: int,
    *,
    name: str,
    directory: Path,
    again: str = AGAIN,
    on_failure: Callable[[Failure], None] = lambda _: None,
    bounds: Bounds | None = None,
) -> int:
    """Run a process that computes until it has ended by itself: its exit code, 0, 1 or 2 (it has said why), or 130
    where the user interrupted.

    name: of the work, as a sentence begins. directory: whose disk must not fill up. again: what the user can do after
    we gave up. lock: a descriptor that the process holds with us. Raises WorkFailed or BadInput where trying again
    leads nowhere, and where disk or battery run out.
    """
    bounds = bounds or Bounds.from_environment()
    conditions = Conditions(directory, bounds.disk_reserve, _say)
    history = _History(bounds.tries)
    while True:
        if reason := conditions.failed():
            raise reason
        kills = memory.kills_for_memory()
        environment = machine.stage_environment()
        if history.budget is not None:
            environment[heartbeat.MEMORY] = str(history.budget)
        end = watch(command, environment, lock, bounds, conditions)
        if end.stopped and end.code and not end.interrupted:
            raise end.stopped
        if end.interrupted or end.code == -signal.SIGINT:
            return 130
        if not is_failure(end):
            if end.code == 2 and history.budget is not None:
                raise WorkFailed(f"{name} had {_gb(history.budget)} of memory to work with, after it ran out with more")
            return end.code
        after = memory.kills_for_memory()
        cause = cause_of(end, None if kills is None or after is None else after > kills)
        what = f"{name} {cause.words} {end.place()}"
        if end_of_it := history.add(end, cause):
            on_failure(Failure(what, _facts(end, cause)))
            raise WorkFailed(f"{what}; {end_of_it}. Everything is kept: {again}")
        with_less = f" with {_gb(history.budget)} of memory in place of {_gb(end.budget)}" if history.lowered else ""
        sentence = f"{what}; it goes on by itself{with_less} ({history.count})"
        facts = _facts(end, cause) | ({"memory_bytes": history.budget} if history.lowered else {})
        on_failure(Failure(sentence, facts))
        _say(f"mlx-ssd: {sentence}")


class _History:
    """What the tries so far have shown. budget: bytes for the next, where memory ran out; lowered: just now."""

    def __init__(self, tries: int):
        self._tries = tries
        self._furthest: dict[str, int] = {}
        self._in_a_row = 0
        self._last: tuple[str, bool] | None = None  # the cause before this one, and whether there was less after it
        self.budget: int | None = None
        self.lowered = False

    @property
    def count(self) -> str:
        return f"try {self._in_a_row + 1} of {self._tries} without progress"

    def add(self, end: End, cause: Cause) -> str | None:
        """Why another try leads nowhere, or None."""
        moved = self._moved(end)
        self._in_a_row = 1 if moved else self._in_a_row + 1
        before, self._last = self._last, None
        if cause.asked:
            return "somebody asked it to end"
        if cause.memory and not cause.certain and not moved and before == (cause.words, True):
            return (
                "with less memory it came no further, so it is not for want of memory, but most likely a defect of a "
                "library or a damaged file"
            )
        if self._in_a_row >= self._tries:
            return f"{self._in_a_row} tries in a row came no further" if self._tries > 1 else "it is not tried again"
        self.lowered = cause.memory and end.budget is not None
        if self.lowered:
            there = min(end.budget, memory.limit_bytes())  # a recipe may ask for more than there can be
            self.budget = int((LESS if self._in_a_row == 1 else STILL_LESS) * there)
        self._last = cause.words, self.lowered
        return None

    def _moved(self, end: End) -> bool:
        moved = [at for at, (done, _) in end.marks.items() if done > self._furthest.get(at, -1)]
        self._furthest |= {at: end.marks[at][0] for at in moved}
        return bool(moved)


def _facts(end: End, cause: Cause) -> dict[str, Any]:
    return {"ended": cause.words, "where": end.place(), "exit_code": end.code}


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB"


def _say(text: str) -> None:
    """On a line of its own: the process may have been in the middle of one."""
    print(("\n" if sys.stderr.isatty() else "") + text, file=sys.stderr, flush=True)
