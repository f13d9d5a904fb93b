"""What the plan predicts against what is measured: peak memory, and seconds after a calibration.

    python -m benchmarks.planning memory --smollm2 FOLDER
    python -m benchmarks.planning seconds --smollm2 FOLDER    # on an idle machine

Each configuration runs in a process of its own: the model is loaded as a run loads it, the engine draws answers of
known lengths or the trainer takes some steps. The lengths are what a plan has to guess; here it is told their mean and
their limit, so that the error is the plan's own. What is predicted of memory is MLX's own peak (`mx.get_peak_memory`),
loading included; the peak of the process stands beside it. Times are those of the work, without starting and loading:
the median of three. Without --smollm2 (made by `python -m benchmarks.stand_ins smollm2 --out FOLDER`) only the embedded
model is run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.journal import RESULTS, Row, append, provenance, start
from benchmarks.planning.cases import CASES, Case, Subject
from benchmarks.planning.report import render

EXPERIMENTS = ("memory", "seconds")
REPEATS = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="*", default=list(EXPERIMENTS), help=", ".join(EXPERIMENTS))
    parser.add_argument("--smollm2", type=Path, help="its folder (python -m benchmarks.stand_ins smollm2 --out FOLDER)")
    parser.add_argument("--only", help="configurations whose name holds this")
    parser.add_argument("--busy", action="store_true", help="mark the rows: other work ran on the machine")
    parser.add_argument("--out", type=Path, default=RESULTS)
    if "--child" in sys.argv:
        from benchmarks.planning.work import child

        print(json.dumps(child(json.loads(sys.stdin.read()))))
        return 0
    shown = ("experiment", "model", "name", "predicted", "measured", "ratio", "load")

    def run(options: argparse.Namespace) -> None:
        append("planning", options.out, rows(options), render, shown)

    return start("planning", parser, EXPERIMENTS, run)


def rows(options: argparse.Namespace) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        places = {("embedded", None): "embedded"}
        if options.smollm2:
            places |= folders(options.smollm2, Path(folder))
        for experiment in options.experiment:
            for case in CASES:
                place = places.get((case.model, case.bits))
                wanted = not options.only or options.only in f"{case.model} {case.name}"
                if place is None or not wanted or (case.slow and experiment == "seconds"):
                    continue
                found = {"memory": memory_row, "seconds": seconds_row}[experiment](case, place)
                # Where the models lie is no matter of the row.
                of_case = {key: value for key, value in asdict(case).items() if key != "slow"}
                yield {"experiment": experiment, **of_case, **found, "busy": options.busy, **provenance("planning")}


def folders(smollm2: Path, out: Path) -> dict[tuple[str, int | None], str]:
    """SmolLM2 as it is, and in fewer bits."""
    import mlx_lm

    found: dict[tuple[str, int | None], str] = {("smollm2", None): str(smollm2)}
    for bits in {case.bits for case in CASES if case.bits}:
        mlx_lm.convert(str(smollm2), str(out / f"{bits}"), quantize=True, q_bits=bits, q_group_size=64)
        found["smollm2", bits] = str(out / f"{bits}")
    return found


def memory_row(case: Case, place: str) -> Row:
    subject = Subject.of(case, place)
    parts, found = subject.parts(), run_child(case, place, 1)
    return {
        "predicted": round(sum(parts.values())),
        "measured": found["peak_mlx_bytes"],
        "ratio": round(sum(parts.values()) / found["peak_mlx_bytes"], 3),
        "parts": {name: round(size) for name, size in parts.items()},
        "footprint": found["peak_rss_bytes"],
        "load": round(os.getloadavg()[0], 1),
    }


def seconds_row(case: Case, place: str) -> Row:
    subject, before = Subject.of(case, place), time.perf_counter()
    speed = subject.calibrated()
    took = time.perf_counter() - before
    predicted, found = subject.seconds(speed), run_child(case, place, REPEATS)
    return {
        "predicted": round(predicted, 2),
        "measured": round(median(found["seconds"]), 2),
        "ratio": round(predicted / median(found["seconds"]), 3),
        "repeats": [round(seconds, 2) for seconds in found["seconds"]],
        "calibration_seconds": round(took, 1),
        "load": round(os.getloadavg()[0], 1),
    }


def run_child(case: Case, place: str, repeats: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.planning", "--child"]
    asked = json.dumps({"case": asdict(case), "place": place, "repeats": repeats})
    process = subprocess.run(command, input=asked, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(process.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
