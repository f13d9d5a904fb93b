"""Why a process ended, as far as it can be told, and what follows from it."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from mlx_ssd.child import OUT_OF_MEMORY
from mlx_ssd.errors import RankLost
from mlx_ssd.progress import duration
from mlx_ssd.supervision.watch import End

# Metal aborts where its memory runs out, MLX on Linux reads where nothing was allocated.
BY_WANT_OF_MEMORY = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS)
ASKED_TO_END = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU)


@dataclass(frozen=True)
class Cause:
    """words: what happened, after the name of the work. memory: whether less of it may help; certain: whether that is
    known. asked: whether somebody wants it to end."""

    words: str
    memory: bool = False
    certain: bool = True
    asked: bool = False


def is_failure(end: End) -> bool:
    """Whether something ended it that it could not say itself."""
    return end.code < 0 or end.code in (OUT_OF_MEMORY, RankLost.exit_code) or _did_not_start(end)


def _did_not_start(end: End) -> bool:
    """Python's own exit code, where a module could not be imported: for want of memory, or because it is broken."""
    return end.code == 1 and not end.attached


def cause_of(end: End, killed_for_memory: bool | None) -> Cause:
    """killed_for_memory: whether the kernel says that it killed something for want of memory; None: it does not say."""
    if end.hung is not None:
        return Cause(f"gave no sign for {duration(end.hung)} and was killed")
    if end.code == OUT_OF_MEMORY:
        return Cause("ran out of memory", memory=True)
    if end.code == RankLost.exit_code:
        return Cause("lost another rank")
    if _did_not_start(end):
        return Cause("failed while it started (see above)")
    number = signal.Signals(-end.code)
    name = number.name
    if number == signal.SIGKILL:
        if killed_for_memory is None:
            return Cause(f"was ended by {name}, most likely for want of memory", memory=True, certain=False)
        if killed_for_memory:
            return Cause(f"was ended by {name}: the system ran out of memory", memory=True)
        return Cause(f"was ended by {name}, and not by the system for want of memory")
    if number in BY_WANT_OF_MEMORY:
        return Cause(f"was ended by {name}, most likely for want of memory", memory=True, certain=False)
    return Cause(f"was ended by {name}", asked=number in ASKED_TO_END)
