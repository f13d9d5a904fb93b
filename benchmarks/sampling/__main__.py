"""Sampling against mlx-lm: tokens a second, peak memory, and where a decoding step's time goes.

    python -m benchmarks.sampling [throughput samples steps parts] [--model embedded|FOLDER|OWNER/NAME] [--rounds 5]

throughput  64 prompts, lengths log-normal (median 75, 95 % below 225) and forced; against mlx_lm.batch_generate and
            against chunk-and-drain, the loop of other ports
samples     8 samples of one prompt of 768 tokens, with the prompt shared and without
steps       every step's time with about 900 tokens in the cache, over a growth of it; on a Mac also which share of
            the chip's bandwidth that is
parts       forward pass, sampler and cache, each alone

SmolLM2 is built by `python -m benchmarks.stand_ins smollm2 --out FOLDER`. Rows are appended to OUT/sampling.jsonl and
rendered into OUT/sampling.md. On Linux it starts itself again with OpenBLAS preloaded; OPENBLAS_NUM_THREADS=1 under
`taskset -c 0` disturbs least. With two cores SmolLM2 takes some ten minutes a round.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.sampling import experiments
from benchmarks.sampling.parts import parts
from benchmarks.sampling.report import TABLES, render
from benchmarks.sampling.workload import Subject
from mlx_ssd import machine
from mlx_ssd.errors import BadInput, SsdError
from mlx_ssd.storage import write_atomic

RESULTS = Path(__file__).parents[1] / "results"
SHOWN = ("experiment", "engine", "rows", "round", "tokens", "seconds", "processor_seconds", "peak_bytes", "load")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="*", metavar="experiment", help=f"of {', '.join(TABLES)}; all")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--dtype", default="auto", help="as stored on a GPU, float32 on a CPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=32, help="side by side, in throughput, steps and parts")
    parser.add_argument("--requests", type=int, default=64, help="of throughput")
    parser.add_argument("--samples", type=int, default=8, help="of samples: completions of one prompt")
    parser.add_argument("--prompt-tokens", type=int, default=768, help="of samples")
    parser.add_argument("--new-tokens", type=int, default=128, help="of samples")
    parser.add_argument("--context", type=int, default=1000, help="of steps: tokens of the longest prompt")
    parser.add_argument("--steps", type=int, default=48, help="of steps")
    parser.add_argument("--positions", type=int, default=100, help="of parts: tokens in the cache")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for sampling.{jsonl,md}")
    return parser


def main() -> int:
    options = make_parser().parse_args()
    try:
        unknown = set(options.experiment) - set(TABLES)
        if unknown:
            raise BadInput(f"{', '.join(sorted(unknown))}: no such experiment; give some of {', '.join(TABLES)}")
        _preload_blas()
        run(options)
    except SsdError as error:
        print(f"sampling: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def run(options: argparse.Namespace) -> None:
    """Append the rows of the chosen experiments to OUT/sampling.jsonl one by one, and render all that it holds."""
    subject = Subject.load(options.model, options.dtype, options.requests)
    common = {
        "model": subject.name,
        "dtype": subject.dtype,
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": shlex.join(["python", "-m", "benchmarks.sampling", *sys.argv[1:]]),
        "commit": _commit(),
        "threads": os.environ.get("OPENBLAS_NUM_THREADS", "all"),
        "versions": machine.versions(),
        "machine": machine.describe(),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    journal = options.out / "sampling.jsonl"
    for experiment in options.experiment or TABLES:
        for row in _rows(experiment, subject, options):
            row = {"experiment": experiment, **row, **common}
            with open(journal, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(*(f"{name} {row[name]}" for name in SHOWN if name in row), sep="  ", flush=True)
    with open(journal, encoding="utf-8") as file:
        write_atomic(options.out / "sampling.md", render([json.loads(line) for line in file]))


def _rows(experiment: str, subject: Subject, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    rows, rounds = options.rows, options.rounds
    if experiment == "throughput":
        return experiments.throughput(subject, rows, options.requests, rounds)
    if experiment == "samples":
        return experiments.samples(subject, options.samples, options.prompt_tokens, options.new_tokens, rounds)
    if experiment == "steps":
        return experiments.steps(subject, rows, options.context, options.steps, rounds)
    milliseconds = parts(subject.model, rows, options.positions)
    found = {"rows": rows, "positions": options.positions, "milliseconds": milliseconds}
    return iter([found | {"load": round(os.getloadavg()[0], 1)}])


def _preload_blas() -> None:
    """Start again with OpenBLAS preloaded, as mlx-ssd starts its stages."""
    if machine.slow_blas_hint() and os.environ.get("MLX_SSD_BLAS") != "bundled":
        raise BadInput(f"{machine.slow_blas_hint()}; MLX_SSD_BLAS=bundled measures without it")
    environment = machine.stage_environment()
    if environment.get("LD_PRELOAD") != os.environ.get("LD_PRELOAD"):
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.sampling", *sys.argv[1:]], environment)


def _commit() -> str:
    command = ["git", "-C", str(RESULTS.parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
