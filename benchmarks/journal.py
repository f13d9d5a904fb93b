"""What the commands of benchmarks share: how they start, the rows they append, and what says where a row was made."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from mlx_ssd import machine
from mlx_ssd.errors import BadInput, SsdError
from mlx_ssd.storage import write_atomic

Row = dict[str, Any]
RESULTS = Path(__file__).parent / "results"


def start(
    name: str,
    parser: argparse.ArgumentParser,
    experiments: Iterable[str],
    run: Callable[[argparse.Namespace], None],
) -> int:
    """Run `python -m benchmarks.NAME` with OpenBLAS preloaded; the exit code. The options have `experiment`, a list."""
    options = parser.parse_args()
    try:
        unknown = set(options.experiment) - set(experiments)
        if unknown:
            raise BadInput(f"{', '.join(sorted(unknown))}: no such experiment; give some of {', '.join(experiments)}")
        _preload_blas(name)
        run(options)
    except SsdError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def provenance(name: str) -> Row:
    """When, where, with what and by which command."""
    return {
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": shlex.join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]]),
        "commit": _commit(),
        "threads": os.environ.get("OPENBLAS_NUM_THREADS", "all"),
        "versions": machine.versions(),
        "machine": machine.describe(),
    }


def append(
    name: str, out: Path, rows: Iterable[Row], render: Callable[[Sequence[Row]], str], shown: Sequence[str]
) -> None:
    """Append `rows` to OUT/NAME.jsonl as they come, print what is `shown` of each, and render the whole file."""
    out.mkdir(parents=True, exist_ok=True)
    journal = out / f"{name}.jsonl"
    for row in rows:
        with open(journal, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(*(f"{field} {row[field]}" for field in shown if field in row), sep="  ", flush=True)
    write_atomic(out / f"{name}.md", render(read(journal)))


def read(journal: Path) -> list[Row]:
    return [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]


def _preload_blas(name: str) -> None:
    """Start again with OpenBLAS preloaded, as mlx-ssd starts its stages."""
    if machine.slow_blas_hint() and os.environ.get("MLX_SSD_BLAS") != "bundled":
        raise BadInput(f"{machine.slow_blas_hint()}; MLX_SSD_BLAS=bundled measures without it")
    environment = machine.stage_environment()
    if environment.get("LD_PRELOAD") != os.environ.get("LD_PRELOAD"):
        os.execve(sys.executable, [sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]], environment)


def _commit() -> str:
    command = ["git", "-C", str(RESULTS.parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
