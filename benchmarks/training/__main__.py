"""Training against mlx-lm's trainer.

    python -m benchmarks.training [throughput loss attention targets packing] [--model embedded FOLDER ...]

throughput  completion tokens a second, lengths log-normal (median 75, 95 % below 225), natural prompts, LoRA of rank 16
            on every linear layer, 16 rows a step; against mlx_lm's trainer as its command line runs it, and at its best
loss        the loss alone, hidden states to their gradient, against cross-entropy over all logits at once: time, peak
            memory; with quantized heads also the difference of the gradients
attention   one layer's attention, forward and backward, in blocks of queries against MLX's own: time, peak memory
targets     steps with soft targets against steps with tokens
packing     positions that carry loss, of all that are computed; counted, on 1,024 rows of the embedded model

A model is `embedded`, a folder (SmolLM2 is built by `python -m benchmarks.stand_ins smollm2 --out FOLDER`), OWNER/NAME,
or qwen3-0.6b-4-layers: so many layers of Qwen3-0.6B's shape, of random weights. Rows are appended to OUT/training.jsonl
and rendered into OUT/training.md. On Linux it starts itself again with OpenBLAS preloaded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import journal
from benchmarks.journal import RESULTS, Row
from benchmarks.training import attention, experiments, head
from benchmarks.training.report import TABLES, render
from benchmarks.training.workload import FOUR_LAYERS, subject

PROMPTS = 256
SHOWN = ("experiment", "model", "case", "engine", "batch_size", "round", "completion_tokens", "seconds")
SHOWN += ("processor_seconds", "peak_bytes", "padding", "load")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="*", metavar="experiment", help=f"of {', '.join(TABLES)}; all")
    parser.add_argument("--model", nargs="+", default=["embedded", FOUR_LAYERS])
    parser.add_argument("--dtype", default="auto", help="as stored on a GPU, float32 on a CPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, help="of a run; 256 of a model below 10M parameters, 16 of others")
    parser.add_argument("--row-tokens", type=int, default=2048, help="of ours: train.row_tokens")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4, 8], help="of mlx-lm, tried for its best")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for training.{jsonl,md}")
    return parser


def run(options: argparse.Namespace) -> None:
    """Append the rows of the chosen experiments to OUT/training.jsonl, and render all that it holds."""
    journal.append("training", options.out, _rows(options), render, SHOWN)


def _rows(options: argparse.Namespace) -> Iterator[Row]:
    common = journal.provenance("training")
    chosen = options.experiment or list(TABLES)
    if "loss" in chosen:
        for row in head.loss(head.CASES, options.rounds):
            yield {"experiment": "loss", **row, "model": "output heads", "dtype": "float32", **common}
    if "attention" in chosen:
        for row in attention.attention(attention.CASES, options.rounds):
            yield {"experiment": "attention", **row, "model": "attention", "dtype": "float32", **common}
    if "packing" in chosen:
        of = subject("embedded", options.dtype, PROMPTS)
        for row in experiments.packing(of, options.row_tokens):
            yield {"experiment": "packing", **row, "model": of.name, "dtype": of.dtype, **common}
    for experiment in (name for name in ("targets", "throughput") if name in chosen):
        for model in options.model:
            of = subject(model, options.dtype, PROMPTS)
            samples = options.samples or experiments.samples_of(of)
            if experiment == "targets":
                rows = experiments.targets(of, samples, options.row_tokens, options.rounds)
            else:
                rows = experiments.throughput(of, samples, options.row_tokens, options.batch_sizes, options.rounds)
            for row in rows:
                yield {"experiment": experiment, **row, "model": of.name, "dtype": of.dtype, **common}


if __name__ == "__main__":
    sys.exit(journal.start("training", make_parser(), TABLES, run))
