"""How far this machine shuts in the programs that are graded (docs/sandbox.md)."""

from __future__ import annotations

from mlx_ssd.doctor.finding import FAIL, OK, WARN, Finding
from mlx_ssd.errors import WorkFailed

# What each level leaves open.
OPEN = {
    "namespaces": "nothing that the tests know of is open",
    "landlock": "open: UDP and Unix sockets, System V memory, how many processes and files there are",
    "seatbelt": "open: reading system files, how many processes and files there are, daemons that call setsid",
    "limits": "open: your files, the network, your processes; only time, memory and output are bounded",
}


def level() -> Finding:
    from mlx_ssd.grading import Limits, ProcessSandbox, check_canaries
    from mlx_ssd.grading.levels import level_here
    from mlx_ssd.sections import Evaluation

    try:
        found = level_here()
        check_canaries(ProcessSandbox(), Limits(**Evaluation().limits.model_dump()))
    except WorkFailed as failure:
        return Finding(FAIL, str(failure), "see docs/sandbox.md; another Python, such as uv's, may be let start")
    text = f"level {found}; {OPEN[found]} (docs/sandbox.md)"
    if found == "limits":
        return Finding(WARN, text, "grade on a kernel with Landlock (Linux 5.13) or user namespaces, or on macOS")
    return Finding(OK, text)
