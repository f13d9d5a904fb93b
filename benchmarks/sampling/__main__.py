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
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import journal
from benchmarks.journal import RESULTS
from benchmarks.sampling import experiments
from benchmarks.sampling.parts import parts
from benchmarks.sampling.report import TABLES, render
from benchmarks.sampling.workload import Subject

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


def run(options: argparse.Namespace) -> None:
    """Append the rows of the chosen experiments to OUT/sampling.jsonl, and render all that it holds."""
    subject = Subject.load(options.model, options.dtype, options.requests)
    common = {"model": subject.name, "dtype": subject.dtype, **journal.provenance("sampling")}
    rows = (
        {"experiment": experiment, **row, **common}
        for experiment in options.experiment or TABLES
        for row in _rows(experiment, subject, options)
    )
    journal.append("sampling", options.out, rows, render, SHOWN)


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


if __name__ == "__main__":
    sys.exit(journal.start("sampling", make_parser(), TABLES, run))
