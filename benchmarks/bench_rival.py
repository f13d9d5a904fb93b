"""What `mlx-ssd bench` says against what `mlx_lm benchmark` says of the same model.

    python -m benchmarks.bench_rival --model embedded --rounds 10
    python -m benchmarks.bench_rival --model smollm2 --rounds 6 -p 128 -g 64 --trials 3

A round is a process of each, in turns, the same prompt and generated tokens, one warm-up and the same number of trials.
Both should say the same: decode tok/s and time to first token equal within noise. mlx_lm counts the first token into
its decoding rate, but not the time that it took; here its rate is of the tokens after the first, as ours is.
Rows are appended to OUT/bench_rival.jsonl, and OUT/bench_rival.md is rendered from all of them.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.journal import RESULTS, Row, append, provenance, start
from benchmarks.turns import turns
from mlx_ssd import machine
from mlx_ssd.bench.comparing import ratio
from mlx_ssd.bench.configurations import Configuration, Load, Subject, subjects_of
from mlx_ssd.bench.measuring import measure
from mlx_ssd.errors import WorkFailed
from mlx_ssd.storage import read_json

NAME = "bench_rival"
OURS, THEIRS = "mlx-ssd bench", "mlx_lm benchmark"
NO_RATE = {"bytes_per_second": 1.0, "source": "not measured"}  # the roofline is not looked at here
WORDS = {"decode_tps": "decode tok/s", "ttft_s": "time to first token"}


def ours(subject: Subject, load: Load, trials: int) -> dict[str, float]:
    (row,) = measure([Configuration(subject, load)], trials, 1, NO_RATE)
    return {"decode_tps": row["decode_tps"]["mean"], "ttft_s": row["ttft_s"]["mean"]}


def theirs(subject: Subject, load: Load, trials: int) -> dict[str, float]:
    lengths = ["-p", str(load.prompt), "-g", str(load.generated), "-b", str(load.batch), "-n", str(trials)]
    command = [sys.executable, "-m", "mlx_lm", "benchmark", "--model", subject.folder, *lengths]
    environment = machine.stage_environment()
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"Averages: prompt_tps=([\d.]+), generation_tps=([\d.]+)", said.stdout)
    if not found:
        raise WorkFailed(f"mlx_lm benchmark gave no averages: {(said.stderr or said.stdout).strip()[-300:]}")
    prompt_tps, generation_tps = map(float, found.groups())
    after_first = (load.generated - 1) / load.generated
    return {"decode_tps": generation_tps * after_first, "ttft_s": load.prompt / prompt_tps}


SIDES = {OURS: ours, THEIRS: theirs}


def measured(options: argparse.Namespace) -> Iterator[Row]:
    (subject,) = subjects_of(options.model)
    config = read_json(Path(subject.folder) / "config.json")
    # As it is stored, which is how mlx_lm takes it on a CPU too.
    subject = replace(subject, dtype=config.get("dtype") or config.get("torch_dtype") or "auto")
    load = Load(options.prompt_tokens, options.generation_tokens)
    made = provenance(NAME) | {"model": subject.name, "revision": subject.revision, **vars(load)}
    for number, side in turns(list(SIDES), options.rounds):
        before = os.getloadavg()[0]
        found = SIDES[side](subject, load, options.trials)
        yield made | {"round": number, "trials": options.trials, "side": side, **found, "load": round(before, 1)}


def render(rows: Sequence[Row]) -> str:
    """Of each model the newest run that is whole."""
    lines = ["# mlx-ssd bench against mlx_lm benchmark", "", __doc__.split("\n\n", 1)[1].rstrip(), ""]
    head = ("model", "tokens", "what", "ours", "mlx_lm", "ours / mlx_lm", "rounds", "load")
    lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [line for run in newest(rows) for line in lines_of(run)]
    lines += ["", "Ratios: geometric means of the rounds' own, with the 95 % interval of a bootstrap over rounds.", ""]
    for run in newest(rows):
        one = run[0]
        lines.append(f"{one['model']}: `{one['command']}`, {one['started']}, {one['machine']['chip']}, "
                     f"{one['machine']['cores']} cores, threads {one['threads']}, mlx {one['versions']['mlx']}, "
                     f"mlx-lm {one['versions']['mlx-lm']}, commit {one['commit']}.")  # fmt: skip
    return "\n".join(lines) + "\n"


def newest(rows: Sequence[Row]) -> list[list[Row]]:
    """Of each model and length the rows of its last run with as many rounds of ours as of theirs."""
    runs: dict[tuple, list[Row]] = {}
    for row in rows:
        runs.setdefault((row["model"], row["prompt"], row["generated"], row["started"]), []).append(row)
    whole = {key: run for key, run in runs.items() if len(of(run, OURS, "round")) == len(of(run, THEIRS, "round")) > 1}
    latest = {key[:-1]: run for key, run in sorted(whole.items(), key=lambda item: item[0][-1])}
    return list(latest.values())


def of(run: Sequence[Row], side: str, name: str) -> list[Any]:
    return [row[name] for row in sorted(run, key=lambda row: row["round"]) if row["side"] == side]


def lines_of(run: Sequence[Row]) -> Iterator[str]:
    one, loads = run[0], [row["load"] for row in run]
    load = f"{min(loads)} to {max(loads)}"
    for name, words in WORDS.items():
        us, them = of(run, OURS, name), of(run, THEIRS, name)
        interval = ratio(them, us)
        figures = [f"{sum(side) / len(side):.4g}" for side in (us, them)]
        yield (
            f"| {one['model']} | {one['prompt']} + {one['generated']} | {words} | {figures[0]} | {figures[1]} | "
            f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}] | {len(us)} | {load} |"
        )


def run(options: argparse.Namespace) -> None:
    append(NAME, options.out, measured(options), render, ("model", "round", "side", *WORDS, "load"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help='folder, hub name or "embedded"')
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=5, help="a process")
    parser.add_argument("-p", "--prompt-tokens", type=int, default=512)
    parser.add_argument("-g", "--generation-tokens", type=int, default=128)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.set_defaults(experiment=[])
    return start(NAME, parser, (), run)


if __name__ == "__main__":
    sys.exit(main())
