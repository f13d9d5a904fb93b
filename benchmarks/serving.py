"""What a server's faults cost, and what the checks at its start tell apart.

    python -m benchmarks.serving faults [--pairs 6] [--at-a-time 8]   time with faults over time without, in pairs
    python -m benchmarks.serving checks [--repeats 5]                which models and orders the checks tell apart

`faults`: 200 requests to a server that takes 20 ms a token (benchmarks.faulty_server.Canned: 8 to 48 tokens an answer),
some of them at a time, into a journal; then the same with 20 % of the questions meeting a fault, of all kinds alike.
The time is that of the whole command but for the loading of the tokenizer: checks of the settings, samples, waits.

`checks`: the log-probabilities of a server with other weights beside the model's own, and how often draws in another
order are refused. What a server would draw is drawn here; a real one is judged in tests/serving/test_real.py.

Both append to results/serving.jsonl and render results/serving.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faulty_server import Canned, FaultyServer
from benchmarks.journal import RESULTS, Row, append, provenance, start
from benchmarks.rounds import wanted_table
from mlx_ssd import models
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.decoding.rng import sample_key
from mlx_ssd.problems import read_problems
from mlx_ssd.records import Sample
from mlx_ssd.sampling.requests import Request
from mlx_ssd.sections import Model, ProblemSource, Prompt, Server
from mlx_ssd.storage import Journal

NAME = "serving"
REQUESTS, SHARE, TIME_OUT = 200, 0.2, 2.0
MOST = 2.0  # times the time without faults: what is wanted
POLICY = DecodingPolicy(1.6, 20, 0.8)
SHOWN = ("what", "pair", "faults", "share", "seconds", "ratio", "samples", "doubled", "mean_difference", "refused")


def drawn(server: Server, path: Path, problems: int, samples: int, policy: DecodingPolicy = POLICY) -> dict[str, Any]:
    from mlx_ssd.sampling.collect import Target, collect
    from mlx_ssd.sampling.engines import SERVER, engine_of

    source = models.locate(Model())
    engine = engine_of(SERVER, server)
    model, tokenizer = engine.load(source, "float32")
    began = time.perf_counter()
    found = collect(
        [Target(path, policy)],
        Sample,
        read_problems(ProblemSource(limit=problems), "train"),
        model,
        tokenizer,
        prompt=Prompt(),
        samples_per_problem=samples,
        max_tokens=64,
        rows=server.concurrency,
        memory_gb=None,
        loops=None,
        seed=0,
        stream="train/round-1",
        revision=source.revision,
        label="sample",
        engine=engine,
    )
    return found | {"whole_seconds": time.perf_counter() - began}


def faults(pairs: int, at_a_time: int) -> Iterator[Row]:
    common = provenance(NAME)
    for pair in range(pairs):
        took = {}
        for share in (0.0, SHARE):
            backend = Canned(end_of_turn=2, seconds_a_token=0.02, lengths=(8, 48))
            with tempfile.TemporaryDirectory() as folder, FaultyServer(backend, share, seed=pair, stall=30.0) as server:
                path = Path(folder) / "samples.jsonl"
                settings = Server(
                    url=server.url, tolerance=None, timeout_seconds=TIME_OUT, concurrency=at_a_time, retries=8
                )
                found = drawn(settings, path, REQUESTS // 5, 5)
                keys = [sample.key for sample in Journal(path, Sample).read()]
            took[share] = found["whole_seconds"]
            yield common | {
                "what": "faults",
                "at_a_time": at_a_time,
                "pair": pair,
                "share": share,
                "faults": sum(server.faults.values()),
                "of_each": dict(sorted(server.faults.items())),
                "questions": server.questions,
                "samples": len(set(keys)),
                "doubled": len(keys) - len(set(keys)),
                "seconds": round(took[share], 3),
                **({"ratio": round(took[SHARE] / took[0.0], 3)} if share else {}),
            }


def answers(model: Any, tokenizer: Any, policy: DecodingPolicy, count: int, seed: int) -> list[Any]:
    """As a server with this model would draw them: `count` answers to as many prompts."""
    from mlx_ssd.prompts import render
    from mlx_ssd.sampling.engine import generate
    from mlx_ssd.sampling.server.checks import DECODING_TOKENS, Drawn

    problems = read_problems(ProblemSource(limit=count), "train")
    prompts = [render(tokenizer, problem.prompt, Prompt()) for problem in problems]
    requests = [
        Request(i, ids, policy, sample_key(seed, "check", str(i), 0), DECODING_TOKENS) for i, ids in enumerate(prompts)
    ]
    stops = {token for token in tokenizer.eos_token_ids if token is not None}
    return [Drawn(prompts[c.key], c.completion_ids, None) for c in generate(model, requests, stops, 32)]


def other_weights() -> Iterator[tuple[str, Any]]:
    """The embedded model in other weights."""
    import mlx.core as mx
    import mlx.nn as nn

    for name in ("float32", "bfloat16", "8 bit", "4 bit", "noise of 1 %", "noise of 5 %", "noise of 20 %"):
        model, _ = models.load(models.locate(Model()), "float32")
        if name == "bfloat16":
            model.set_dtype(mx.bfloat16)
        elif "bit" in name:
            nn.quantize(model, group_size=32, bits=int(name.split()[0]))
        elif "noise" in name:
            mx.random.seed(0)
            model.update(_noisy(model.parameters(), float(name.split()[2]) / 100))
        yield name, model


def _noisy(parameters: Any, part: float) -> Any:
    """Every matrix with normal noise of `part` of its own spread."""
    import mlx.core as mx
    from mlx.utils import tree_map

    return tree_map(lambda p: p + part * p.std() * mx.random.normal(p.shape) if p.ndim == 2 else p, parameters)


def checks(repeats: int) -> Iterator[Row]:
    from mlx_ssd.errors import BadInput
    from mlx_ssd.sampling.server.checks import DECODING_PROMPTS, MODEL_PROMPTS, ROOT, Own, check_decoding, check_model

    common = provenance(NAME)
    model, tokenizer = models.load(models.locate(Model()), "float32")
    own = Own(model)
    for weights, other in other_weights():
        drawn = answers(other, tokenizer, ROOT, MODEL_PROMPTS, 0)
        theirs = [dataclasses.replace(a, logprobs=logprobs(Own(other), a)) for a in drawn]
        yield common | {"what": "model", "weights": weights, **check_model(own, theirs, 1e9)}
    for order in ("temperature_first", "mlx_lm", "llama_cpp"):
        for repeat in range(repeats):
            row = common | {"what": "order", "order": order, "repeat": repeat}
            drawn = answers(model, tokenizer, dataclasses.replace(POLICY, order=order), DECODING_PROMPTS, repeat)
            try:
                yield row | check_decoding(own, drawn, POLICY)
            except BadInput as error:
                yield row | {"refused": str(error)}


def logprobs(own: Any, drawn: Any) -> list[float]:
    logits = own.logits(drawn).astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return logits[np.arange(len(drawn.ids)), drawn.ids].tolist()


def interval(values: Sequence[float], resamples: int = 10_000) -> tuple[float, float, float]:
    """Geometric mean of ratios, and its bootstrap interval over pairs."""
    logs = np.log(values)
    means = np.random.default_rng(0).choice(logs, (resamples, len(logs))).mean(axis=1)
    low, high = np.exp(np.quantile(means, (0.025, 0.975)))
    return float(np.exp(logs.mean())), float(low), float(high)


def by_concurrency(rows: Sequence[Row]) -> dict[int, list[Row]]:
    """The rows of `faults`."""
    found: dict[int, list[Row]] = {}
    for row in rows:
        if row["what"] == "faults":
            found.setdefault(row["at_a_time"], []).append(row)
    return dict(sorted(found.items()))


def sentence(measured: Sequence[Row]) -> str:
    """What the rows of one concurrency say, for the documentation too."""
    mean, low, high = interval([row["ratio"] for row in measured if row["share"]])
    pairs = sum(1 for row in measured if row["share"])
    missing, doubled = _wrong(measured)
    at_a_time = measured[0]["at_a_time"]
    return (
        f"{REQUESTS} requests, {at_a_time} at a time, {SHARE:.0%} of the questions meet a fault, time-out {TIME_OUT:g} "
        f"s: {mean:.2f} [{low:.2f}, {high:.2f}] times the time without faults, over {pairs} pairs; samples missing: "
        f"{missing}, doubled: {doubled}."
    )


def table(rows: Sequence[Row]) -> str:
    """Markdown for the documents, as benchmarks.rounds has it."""
    lines = []
    for at_a_time, measured in by_concurrency(rows).items():
        mean, low, high = interval([row["ratio"] for row in measured if row["share"]])
        what = f"{REQUESTS} requests to a server, {SHARE:.0%} meet a fault, {at_a_time} at a time: seconds"
        against = f"without faults, {sum(1 for row in measured if row['share'])} pairs"
        lines.append((what, against, f"at most {MOST:g}", f"{mean:.2f} [{low:.2f}, {high:.2f}]"))
        missing, doubled = _wrong(measured)
        lines.append(("samples missing, doubled", "", "0, 0", f"{missing}, {doubled}"))
    return wanted_table(lines)


def _wrong(measured: Sequence[Row]) -> tuple[int, int]:
    """Samples missing, and doubled."""
    return sum(REQUESTS - row["samples"] for row in measured), sum(row["doubled"] for row in measured)


def render(rows: Sequence[Row]) -> str:
    lines = ["# Samples from a server", ""]
    for measured in by_concurrency(rows).values():
        with_faults = [row for row in measured if row["share"]]
        lines += [
            f"`{measured[-1]['command']}`: {sentence(measured)}",
            "",
            "| pair | s without | s with | ratio | questions | faults | samples | doubled |",
            "|---|---|---|---|---|---|---|---|",
        ]
        plain = {row["pair"]: row for row in measured if not row["share"]}
        for row in with_faults:
            seconds = plain[row["pair"]]["seconds"]
            lines.append(
                f"| {row['pair'] + 1} | {seconds:.2f} | {row['seconds']:.2f} | {row['ratio']:.2f} | {row['questions']} "
                f"| {row['faults']} | {row['samples']} | {row['doubled']} |"
            )
        lines.append("")
    if compared := [row for row in rows if row["what"] == "model"]:
        lines += [
            f"`{compared[-1]['command']}`: log-probabilities of the embedded model in other weights, as a server would "
            "give them, beside its own in float32.",
            "",
            "| weights | nats on average | at most | refused at 0.05 |",
            "|---|---|---|---|",
        ]
        for row in compared:
            mean, most = row["mean_difference"], row["largest_difference"]
            lines.append(f"| {row['weights']} | {mean:.2g} | {most:.2g} | {'yes' if mean > 0.05 else 'no'} |")
        lines.append("")
    if ordered := [row for row in rows if row["what"] == "order"]:
        lines += [f"Draws of the embedded model at {POLICY.name()}, taken for those of order {POLICY.order}:", ""]
        for order in dict.fromkeys(row["order"] for row in ordered):
            of = [row for row in ordered if row["order"] == order]
            lines.append(f"- drawn in order {order}: refused in {sum('refused' in row for row in of)} of {len(of)}.")
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment", nargs="+")
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--at-a-time", type=int, default=8, help="questions that the server is asked side by side")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)

    def run(options: argparse.Namespace) -> None:
        of = {"faults": lambda: faults(options.pairs, options.at_a_time), "checks": lambda: checks(options.repeats)}
        for experiment in options.experiment:
            append(NAME, options.out, of[experiment](), render, SHOWN)

    return start(NAME, parser, ("faults", "checks"), run)


if __name__ == "__main__":
    sys.exit(main())
