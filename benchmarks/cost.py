"""What self-distillation and quantization cost or save when a model answers: base, adapter beside the weights and
fused, in 32, 8 and 4 bits.

    mlx-ssd run quickstart
    python -m benchmarks.cost --run runs/quickstart --rounds 10

SmolLM2-135M, with an adapter on every linear layer whose training is of no account here (two steps):

    python -m benchmarks.stand_ins smollm2 --out smollm2
    for stage in sample curate train; do mlx-ssd $stage runs/smollm2 --recipe mac-4b-instruct --model smollm2 \\
        --set "problems.train={source: embedded, limit: 4}" --set sample.max_tokens=16 --set train.rows_per_step=2 \\
        --set train.validation=null --set curate.drop_stubs=false; done
    python -m benchmarks.cost --run runs/smollm2 -p 32 -n 16 --rounds 5

All nine take turns, each in a process of its own, by `mlx-ssd bench --compare`; ratios are to the base in 32 bits.
Rows are appended to OUT/cost.jsonl, and OUT/cost.md is rendered from the newest run of each model.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.journal import RESULTS, Row, append, provenance, start
from mlx_ssd.bench.benching import bench
from mlx_ssd.bench.comparing import columns as ratio_columns
from mlx_ssd.bench.comparing import heading
from mlx_ssd.bench.configurations import configurations, subjects_of
from mlx_ssd.bench.tables import columns, notes, piped

NAME = "cost"
BITS = (32, 8, 4)


def measured(options: argparse.Namespace) -> Iterator[Row]:
    made = provenance(NAME) | {"load_before": round(os.getloadavg()[0], 1)}
    wanted = configurations(subjects_of(str(options.run)), BITS, (options.prompt_tokens,), (options.generated_tokens,))
    for row in bench(wanted, options.rounds, 1, True, None):
        yield made | {"what": "ratios" if "ratios" in row else "figures"} | row


def newest(rows: Sequence[Row]) -> list[list[Row]]:
    """Of each model the rows of the last run."""
    runs: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        model = row["model"] if row["what"] == "figures" else row["baseline"]["model"]
        runs.setdefault((model, row["started"]), []).append(row)
    latest = {model: run for (model, _), run in sorted(runs.items(), key=lambda item: item[0][1])}
    return list(latest.values())


def render(rows: Sequence[Row]) -> str:
    parts = ["# What self-distillation and quantization cost or save", __doc__.split("\n\n", 1)[1].rstrip()]
    for run in newest(rows):
        figures = [row for row in run if row["what"] == "figures"]
        one, load = figures[0], f"load {figures[0]['load_before']} before and {figures[-1]['load_average']} after"
        made = f"`{one['command']}`, {one['started']}, commit {one['commit']}, threads {one['threads']}, {load}."
        parts += [f"## {one['model']}", made]
        compared = next(row for row in run if row["what"] == "ratios")
        parts += [piped(columns(figures)), heading(compared), ratios(run), *notes(figures)]
    return "\n\n".join(parts) + "\n"


def ratios(run: Sequence[Row]) -> str:
    return piped(ratio_columns([row for row in run if row["what"] == "ratios"]))


def run(options: argparse.Namespace) -> None:
    append(NAME, options.out, measured(options), render, ("what", "model", "adapter", "bits", "ratios"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a run directory with a trained adapter")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("-p", "--prompt-tokens", type=int, default=128)
    parser.add_argument("-n", "--generated-tokens", type=int, default=64)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.set_defaults(experiment=[])
    return start(NAME, parser, (), run)


if __name__ == "__main__":
    sys.exit(main())
