"""Programs graded a second: a trivial program with 8 tests, each program a different text.

python benchmarks/grading.py [--programs 200] [--workers 2]
"""

import argparse
import json
import os
import platform
import time

from mlx_ssd.grading import Limits, ProcessSandbox, check_canaries, grade_many

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--programs", type=int, default=200, help="functions; a tenth as many scripts")
parser.add_argument("--workers", type=int, default=2)
options = parser.parse_args()

limits = Limits(wall_seconds=10.0, cpu_seconds=10.0, memory_mb=1024, output_kb=1024, processes=16)
sandbox = ProcessSandbox()
check_canaries(sandbox, limits)

FORMS = {
    "function": (
        "def f(a, b): return a + b",
        [{"args": [i, i], "expected": 2 * i} for i in range(8)],
        options.programs,
    ),
    "script": (
        "print(2 * int(input()))",
        [{"stdin": f"{i}\n", "stdout": f"{2 * i}\n"} for i in range(8)],
        max(1, options.programs // 10),
    ),
}
for form, (code, tests, programs) in FORMS.items():
    items = [(i, f"{code}  # {i}", "f", tests) for i in range(programs)]
    started = time.perf_counter()
    verdicts = [verdict.verdict for _, verdict in grade_many(items, limits, sandbox, options.workers)]
    seconds = time.perf_counter() - started
    assert verdicts == ["pass"] * programs
    row = {
        "form": form,
        "workers": options.workers,
        "programs_per_second": round(programs / seconds, 1),
        "tests_per_second": round(8 * programs / seconds, 1),
        "load_before": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        **sandbox.mechanisms(),
    }
    print(json.dumps(row))
