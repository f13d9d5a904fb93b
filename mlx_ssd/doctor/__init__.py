"""`mlx-ssd doctor`: whether this machine can do the work, part by part, and how to mend what keeps it from it.

Nothing is loaded or downloaded, and nothing waits long: each check has SECONDS or what LONGER gives it, all of them at
the same time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from mlx_ssd.doctor import hardware, packages, power, reach, sandbox
from mlx_ssd.doctor.finding import FAIL, OK, WARN, Finding

SECONDS = 2.5
LONGER = {"sandbox": 15.0}  # it starts some twenty interpreters, one after the other
CHECKS: dict[str, Callable[[], Finding | None]] = {
    "chip": hardware.chip,
    "memory": hardware.memory,
    "working set": hardware.working_set,
    "system": hardware.system,
    "python": packages.python,
    "packages": packages.packages,
    "blas": hardware.blas,
    "sandbox": sandbox.level,
    "disk": reach.disk,
    "hub": reach.hub,
    "power": power.power,
    "sleep": power.sleep,
}


def examine() -> dict[str, Finding]:
    """What each check found, in their order; nothing of one that has nothing to say about this machine. One that
    raised, or gave no answer in time, is a warning."""
    found: dict[str, Finding | None] = {}

    def work(name: str, check: Callable[[], Finding | None]) -> None:
        try:
            found[name] = check()
        except Exception as error:  # a check that does not work here must not hide the others
            found[name] = Finding(WARN, f"not known: {type(error).__name__}: {error}", "report this line as a defect")

    # Daemons: one that hangs ends with the process.
    threads = {name: threading.Thread(target=work, args=(name, CHECKS[name]), daemon=True) for name in CHECKS}
    start = time.monotonic()
    for thread in threads.values():
        thread.start()
    for name, thread in threads.items():
        thread.join(max(0.0, start + LONGER.get(name, SECONDS) - time.monotonic()))
    answers = {name: found.get(name, _unanswered(name)) for name in CHECKS}
    return {name: finding for name, finding in answers.items() if finding is not None}


def _unanswered(name: str) -> Finding:
    seconds = LONGER.get(name, SECONDS)
    return Finding(WARN, f"not known: no answer in {seconds:g} s", "look at it by hand, or try again")


def verdict(findings: Mapping[str, Finding]) -> str:
    """The worst of them."""
    statuses = [finding.status for finding in findings.values()]
    return max(statuses, key=(OK, WARN, FAIL).index, default=OK)
