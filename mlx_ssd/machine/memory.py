"""How much memory there is for this process: the machine's own, or less where a control group or a limit says so."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
KERNEL_COUNTERS = Path("/proc/vmstat")


def physical_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def limits() -> dict[str, int]:
    """What bounds this process, in bytes, by what sets it: "memory" always, "control group" and "address space" where
    they are set."""
    found = {"memory": physical_bytes()}
    texts = (_read(path) for path in _own_group_files(version_2="memory.max", version_1="memory.limit_in_bytes"))
    # Version 2 writes "max" for no limit, version 1 a number near 2**63.
    groups = [int(text) for text in texts if text.isdigit() and int(text) < 2**62]
    if groups:
        found["control group"] = min(groups)
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        found["address space"] = soft
    return found


def limit_bytes() -> int:
    """The least of them."""
    return min(limits().values())


def kills_for_memory() -> int | None:
    """How many processes the kernel has killed for want of memory in this process's control group, or, where that has
    no counter, on the machine; None where it does not say."""
    if sys.platform != "linux":
        return None
    for path in (*_own_group_files(version_2="memory.events", version_1="memory.oom_control"), KERNEL_COUNTERS):
        for line in _read(path).splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill" and count.isdigit():
                return int(count)
    return None


def _own_group_files(version_2: str, version_1: str) -> Iterator[Path]:
    """The file of that name of this process's control group, then of those above it; there need not be any."""
    for line in _read(OWN_GROUPS).splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            roots, name = (CONTROL_GROUPS, CONTROL_GROUPS / "unified"), version_2
        elif "memory" in controllers.split(","):
            roots, name = (CONTROL_GROUPS / "memory",), version_1
        else:
            continue
        # In a container the path is that of outside, and the container's own group is mounted as the root.
        own = Path(group.lstrip("/"))
        yield from (root / place / name for root in roots for place in (own, *own.parents))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
