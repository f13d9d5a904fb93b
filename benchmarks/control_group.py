"""A control group of version 1 with a limit of memory, below this process's own: for commands that are to obey it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlx_ssd.machine import memory


@dataclass(frozen=True)
class ControlGroup:
    path: Path

    def command(self, command: Sequence[str]) -> list[str]:
        """That command, in this group from its first moment."""
        return ["sh", "-c", f'echo $$ > "{self.path}/cgroup.procs" && exec "$@"', "sh", *command]

    def peak_bytes(self) -> int:
        """The most that its processes have taken together, the files that they have read and written included."""
        return int((self.path / "memory.max_usage_in_bytes").read_text())

    def kills(self) -> int:
        text = (self.path / "memory.oom_control").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill "))


def refusal() -> str | None:
    """Why no group can be made here, or None."""
    own = _own()
    if own is None:
        return "no control group of version 1 holds this process's memory"
    return None if os.access(own, os.W_OK) and os.geteuid() == 0 else f"no right to make a group in {own}"


@contextlib.contextmanager
def control_group(limit: int) -> Iterator[ControlGroup]:
    """Removed when left: its processes must have ended by then."""
    path = _own() / f"mlx-ssd-{os.getpid()}-{time.monotonic_ns()}"
    path.mkdir()
    try:
        (path / "memory.limit_in_bytes").write_text(str(limit))
        yield ControlGroup(path)
    finally:
        path.rmdir()


def _own() -> Path | None:
    if not memory.OWN_GROUPS.exists():
        return None
    for line in memory.OWN_GROUPS.read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        path = memory.CONTROL_GROUPS / "memory" / group.lstrip("/")
        if "memory" in controllers.split(",") and (path / "memory.limit_in_bytes").exists():
            return path
    return None
