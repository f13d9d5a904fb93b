"""Does a second and a third round of self-distillation help, and by which schedule?

    python -m benchmarks.schedules --work DIR [--jobs 2]

One run directory for each pre-trained base of benchmarks/effect, its four schedules as arms, three rounds each, 480
prompts a round. Every round is decoded on validation problems at four temperatures and counts at its best one; the
round that is kept by these is then decoded on the test problems, once. -> DIR/schedules.{jsonl,md,svg}

Everything goes through `mlx_ssd.run`, so the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path

from benchmarks.effect.report import read
from benchmarks.effect.runs import base_model, command, run_all
from benchmarks.embedded_model.solutions import Noise
from benchmarks.schedules import collect
from benchmarks.schedules.design import BASE_TOP_P, TEMPERATURES, Design, recipe
from benchmarks.schedules.report import figure, render
from mlx_ssd import machine
from mlx_ssd.errors import SsdError, WorkFailed
from mlx_ssd.models import locate
from mlx_ssd.sections import Model
from mlx_ssd.storage import write_atomic


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for runs and results")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one core each")
    for field in fields(Design):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, type=int, default=field.default, help=f"default {field.default}")
    arguments = parser.parse_args()
    # Side by side, runs are fastest on one thread each; the stages inherit it.
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        design = Design(**{field.name: getattr(arguments, field.name) for field in fields(Design)})
        experiment(design, arguments.work.resolve(), arguments.jobs)
    except SsdError as error:
        print(f"schedules: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def experiment(design: Design, work: Path, jobs: int) -> None:
    """All of it; what is done is skipped."""
    models = [base_model(base, work) for base in range(design.bases)]
    runs = run_all([recipe(design, base, model) for base, model in enumerate(models)], work, jobs)
    more = {
        "command": command("benchmarks.schedules", design, jobs),
        "jobs": jobs,
        "design": asdict(design),
        "noise": asdict(Noise()),
        "temperatures": TEMPERATURES,
        "base_top_p": BASE_TOP_P,
        "base_revisions": [locate(Model(path=path)).revision for path in models],
    }
    rows = [collect.manifest(runs, more)]
    for base, files in enumerate(runs):
        rows += collect.rows(base, files)
    rows += composed(work)
    rows = [json.loads(json.dumps(row)) for row in rows]  # as a reader of the file has them
    write_atomic(work / "schedules.jsonl", "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))
    write_atomic(work / "schedules.md", render(rows))
    write_atomic(work / "schedules.svg", figure(rows))
    print(f"{work / 'schedules.md'} and {work / 'schedules.jsonl'}: {len(rows) - 1} results of {len(runs)} runs")


def composed(work: Path) -> list[collect.Row]:
    """The rows of the same rounds as decoding rules, computed in a process with the BLAS that stages have."""
    command = [sys.executable, "-m", "benchmarks.schedules.composed", str(work)]
    if code := subprocess.run(command, env=machine.stage_environment()).returncode:
        raise WorkFailed(f"benchmarks.schedules.composed ended with {code}; the same command goes on from there")
    return read(work / "composed.jsonl")


if __name__ == "__main__":
    sys.exit(main())
