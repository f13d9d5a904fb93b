"""What becomes of the hostile programs of tests/grading at each level of the sandbox, as root and as another user.

    python -m benchmarks.hostile

Writes results/hostile.json; docs/sandbox.md shows its `table`. Some programs are not run where nothing holds them:
they would end or fill the machine.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from mlx_ssd.storage import write_atomic

RESULTS = Path(__file__).parent / "results" / "hostile.json"
LEVELS = ("namespaces", "landlock", "limits")


def measure() -> dict[str, Any]:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "grading"))
    from attack import as_an_ordinary_user, level_of, report
    from hostile import HOSTILE

    users = {"root" if os.getuid() == 0 else "user": report}
    found: dict[str, dict[str, dict]] = {}
    with as_an_ordinary_user() as other:
        if os.getuid() == 0 and other is not None:
            users["user"] = other
        for user, report_of in users.items():
            found[user] = {level: report_of(level).get("found", {}) for level in LEVELS}
    rows = [
        {
            "name": hostile.name,
            "aim": hostile.aim,
            "found": {user: {level: of[level].get(hostile.name) for level in LEVELS} for user, of in found.items()},
        }
        for hostile in HOSTILE
    ]
    return {
        "command": "python -m benchmarks.hostile",
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "machine": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "landlock": level_of("landlock")[1],
        "rows": rows,
    }


def table(results: dict[str, Any]) -> str:
    """Markdown: the programs that get through somewhere, and what is said of the others."""
    lines = ["| program | what must not come of it | namespaces | landlock | limits alone |", "|---|---|---|---|---|"]
    held = 0
    for row in results["rows"]:
        cells = [_cell({user: levels[level] for user, levels in row["found"].items()}) for level in LEVELS]
        if set(cells) == {"held"}:
            held += 1
        else:
            lines.append(f"| {row['name']} | {row['aim']} | {' | '.join(cells)} |")
    users = " and as ".join({"root": "root", "user": "an ordinary user"}[user] for user in results["rows"][0]["found"])
    lines.append("")
    lines.append(f"The other {held} of {len(results['rows'])} are held at every level ({results['machine']}, Landlock")
    lines.append(f"{results['landlock']}; as {users}).")
    return "\n".join(lines)


def _cell(by_user: dict[str, str | None]) -> str:
    """What came of it: None not run, "" nothing."""
    if None in by_user.values():
        return "not run"
    # How long it took, and whether it was graded at all, is for the tests to judge, on a machine that is not busy.
    apart = ("took ", "harness_error")
    reached = [user for user, harm in by_user.items() if [h for h in harm.split(", ") if h and not h.startswith(apart)]]
    if not reached:
        return "held"
    return "**through**" if len(reached) == len(by_user) else f"**through**, as {' '.join(reached)}"


if __name__ == "__main__":
    write_atomic(RESULTS, json.dumps(measure(), indent=1) + "\n")
