"""Time and memory of the analysis: against two plain forward passes over the same tokens, and by the number of texts.

    python -m benchmarks.analysis
    python -m benchmarks.stand_ins smollm2 --out smollm2
    python -m benchmarks.analysis --model smollm2 --texts 12 --rounds 5

Both take turns in one process: base and student over the same packed rows, their logits at every completion position
computed and let go; and the analysis of the same tokens, parts written. The student wears an adapter of rank 16 at
random. Seconds are of the processor. Memory is the peak of MLX and of the process, each size in a process of its own.
Rows are appended to OUT/analysis.jsonl, and OUT/analysis.md is rendered from the newest run of each model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.journal import RESULTS, Row, append, provenance, start

NAME = "analysis"
GOAL = 1.5  # times the two forward passes
PROMPT, COMPLETION = 62, 48  # tokens, as the embedded model's problems and answers have
MORE = 8  # times the texts, for memory
LORA = SimpleNamespace(rank=16, scale=2.0, dropout=0.0, keys="all", experts=False, num_layers=-1, seed=0)


def texts(count: int, vocabulary: int, seed: int) -> list[Any]:
    import numpy as np

    from mlx_ssd.analysis.store import Text

    rng = np.random.default_rng(seed)
    return [
        Text(
            problem_id=f"p{number}",
            sample_index=0,
            prompt_ids=rng.integers(vocabulary, size=PROMPT).tolist(),
            completion_ids=rng.integers(vocabulary, size=int(rng.integers(COMPLETION // 2, 2 * COMPLETION))).tolist(),
        )
        for number in range(count)
    ]


def student_of(path: str) -> tuple[Any, int]:
    """The model with a random adapter, and its vocabulary."""
    import mlx.core as mx

    from mlx_ssd import models
    from mlx_ssd.sections import Model
    from mlx_ssd.training import lora

    source = models.locate(Model(path=path))
    model, _ = models.load(source)
    lora.attach(model, LORA)
    weights = lora.adapter_weights(model)
    model.load_weights([(name, 0.01 * mx.random.normal(w.shape)) for name, w in weights.items()], strict=False)
    model.eval()
    mx.eval(model.parameters())
    return model, models.read_config(Model(path=path))["vocab_size"]


def contestants(path: str, count: int, seed: int) -> tuple[Callable[[], None], Callable[[], None], int]:
    """(plain, analysis, completion tokens)."""
    import mlx.core as mx

    from mlx_ssd.analysis import forcing
    from mlx_ssd.decoding.policy import DecodingPolicy

    model, vocabulary = student_of(path)
    pair, found = forcing.pair_of(model), texts(count, vocabulary, seed)
    size = max(forcing.CHUNK_BYTES // (4 * vocabulary), 1)

    def plain() -> None:
        for batch in forcing.batches(found, pair.packed, forcing.ROW_TOKENS):
            for side in (pair.base, pair.student):
                states, head = side(batch)
                mx.eval(states)
                for first in range(0, len(states), size):
                    mx.eval(head(states[first : first + size]).astype(mx.float32))

    def analysis() -> None:
        with tempfile.TemporaryDirectory() as folder:
            policies = DecodingPolicy(1.6, 20, 0.8), DecodingPolicy(0.9, 20, 0.8)
            forcing.force(found, Path(folder), "student", lambda: pair, *policies, "benchmark")

    return plain, analysis, sum(len(text.completion_ids) for text in found)


def time_row(path: str, rounds: int, count: int, seed: int) -> Row:
    import numpy as np

    from benchmarks.turns import clocks, turns
    from mlx_ssd.statistics import bootstrap_mean

    plain, analysis, tokens = contestants(path, count, seed)
    took: dict[str, list[float]] = {"plain": [], "analysis": []}
    for number, (name, work) in turns([("plain", plain), ("analysis", analysis)], rounds + 1):
        started = clocks()
        work()
        if number:  # the first round warms up and compiles
            took[name].append(float((clocks() - started)[1]))
    ratio = bootstrap_mean(np.array(took["analysis"]) / np.array(took["plain"]), seed=seed)
    return {
        "what": "time",
        "tokens": tokens,
        "rounds": rounds,
        "plain_seconds": [round(seconds, 4) for seconds in took["plain"]],
        "analysis_seconds": [round(seconds, 4) for seconds in took["analysis"]],
        "ratio": {name: round(getattr(ratio, name), 4) for name in ("mean", "low", "high")},
        "goal": GOAL,
        "reached": ratio.high <= GOAL,
    }


def memory_row(path: str, count: int, seed: int) -> Row:
    """Of so many texts, in this process, which has done nothing else."""
    import mlx.core as mx

    from mlx_ssd import machine

    _, analysis, tokens = contestants(path, count, seed)
    mx.reset_peak_memory()
    analysis()
    peaks = {"peak_mlx_bytes": mx.get_peak_memory(), "peak_rss_bytes": machine.peak_rss_bytes()}
    return {"what": "memory", "texts": count, "tokens": tokens, **peaks}


def named(path: str) -> str:
    """Without the folder that it stands in."""
    return Path(path).name


def measured(options: argparse.Namespace) -> Iterator[Row]:
    made = provenance(NAME) | {"load_before": round(os.getloadavg()[0], 1), "model": named(options.model)}
    yield made | time_row(options.model, options.rounds, options.texts, options.seed)
    for count in (options.texts, MORE * options.texts):
        command = [sys.executable, "-m", "benchmarks.analysis", "--only-memory", "--model", options.model]
        command += ["--texts", str(count), "--seed", str(options.seed)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        yield made | json.loads(output.splitlines()[-1])


def newest(rows: Sequence[Row]) -> list[list[Row]]:
    """Of each model the rows of the last run."""
    runs: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        runs.setdefault((row["model"], row["started"]), []).append(row)
    latest = {model: run for (model, _), run in sorted(runs.items(), key=lambda item: item[0][1])}
    return list(latest.values())


def render(rows: Sequence[Row]) -> str:
    parts = ["# The analysis: time and memory", __doc__.split("\n\n", 1)[1].rstrip()]
    for run in newest(rows):
        one = run[0]
        made = f"`{one['command']}`, {one['started']}, commit {one['commit']}, threads {one['threads']}, "
        parts += [f"## {one['model']}, {one['machine']['chip']}", f"{made}load {one['load_before']} before."]
        parts += ["\n".join(_table(run))]
    return "\n\n".join(parts) + "\n"


def _table(run: Sequence[Row]) -> Iterator[str]:
    yield "| what | tokens | wanted | measured |"
    yield "|---|---|---|---|"
    for row in run:
        if row["what"] == "time":
            ratio = "{mean:.2f} [{low:.2f}, {high:.2f}]".format(**row["ratio"])
            yield f"| time, of two forward passes | {row['tokens']:,} | at most {row['goal']} | {ratio} |"
        else:
            of_mlx, of_process = (f"{row[name] / 1e6:,.0f} MB" for name in ("peak_mlx_bytes", "peak_rss_bytes"))
            peaks = f"{of_mlx} of MLX, {of_process} of the process"
            yield f"| peak memory of {row['texts']:,} texts | {row['tokens']:,} | the same | {peaks} |"


def run(options: argparse.Namespace) -> None:
    if options.only_memory:
        print(json.dumps(memory_row(options.model, options.texts, options.seed)))
        return
    append(NAME, options.out, measured(options), render, ("what", "model", "texts", "ratio", "peak_mlx_bytes"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--texts", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--only-memory", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(experiment=[])
    return start(NAME, parser, (), run)


if __name__ == "__main__":
    sys.exit(main())
