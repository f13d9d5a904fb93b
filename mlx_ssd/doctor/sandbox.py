"""How far this machine shuts in the programs that are graded (docs/sandbox.md)."""

from __future__ import annotations

from mlx_ssd.doctor.finding import OK, WARN, Finding

# What each level leaves open.
OPEN = {
    "namespaces": "nothing that the tests know of is open",
    "landlock": "open: UDP and Unix sockets, System V memory, how many processes and files there are",
    "seatbelt": "open: reading system files, how many processes and files there are, daemons that call setsid",
    "limits": "open: your files, the network, your processes; only time, memory and output are bounded",
}


def level() -> Finding:
    from mlx_ssd.grading.levels import level_here

    found = level_here()
    text = f"level {found}; {OPEN[found]} (docs/sandbox.md)"
    if found == "limits":
        return Finding(WARN, text, "grade on a kernel with Landlock (Linux 5.13) or user namespaces, or on macOS")
    return Finding(OK, text)
