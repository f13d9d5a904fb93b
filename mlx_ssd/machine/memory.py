"""How much memory there is for this process: the machine's own, or less where a control group or a limit says so."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def physical_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def limits() -> dict[str, int]:
    """What bounds this process, in bytes, by what sets it: "memory" always, "control group" and "address space" where
    they are set."""
    found = {"memory": physical_bytes()}
    if sys.platform == "linux" and (groups := list(_group_limits())):
        found["control group"] = min(groups)
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        found["address space"] = soft
    return found


def limit_bytes() -> int:
    """The least of them."""
    return min(limits().values())


def _group_limits() -> Iterator[int]:
    """Of this process's control groups and all above them: version 2, or the memory controller of version 1."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            roots, name = (CONTROL_GROUPS, CONTROL_GROUPS / "unified"), "memory.max"
        elif "memory" in controllers.split(","):
            roots, name = (CONTROL_GROUPS / "memory",), "memory.limit_in_bytes"
        else:
            continue
        for root in roots:
            # In a container the path is that of outside, and the container's own group is mounted as the root.
            own = Path(group.lstrip("/"))
            for place in (root / own, *(root / above for above in own.parents)):
                try:
                    text = (place / name).read_text().strip()
                except OSError:
                    continue
                if text.isdigit() and int(text) < 2**62:  # version 1 writes "no limit" as a number near 2**63
                    yield int(text)

