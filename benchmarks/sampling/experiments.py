"""Three comparisons. Contestants take turns in one process, every round in another order; a row is one run of one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.sampling import engines
from benchmarks.sampling.engines import Engine
from benchmarks.sampling.workload import POLICY, Subject, lengths, requests_for
from benchmarks.turns import measure, turns
from mlx_ssd import budget, machine
from mlx_ssd.sampling.engine import Request

Row = dict[str, Any]


@dataclass(frozen=True)
class Contestant:
    name: str
    rows: int
    run: Engine
    requests: list[Request]


def throughput(subject: Subject, rows: int, requests: int, rounds: int) -> Iterator[Row]:
    """Different prompts, lengths of completions as in sampling: ours, the same with twice the rows, both rivals."""
    work = requests_for([subject.prompts[i % len(subject.prompts)] for i in range(requests)], lengths(requests))
    contestants = [
        Contestant("ours", rows, engines.Ours(subject.model, rows), work),
        Contestant("mlx_lm.batch_generate", rows, engines.mlx_lm(subject.model, rows), work),
        Contestant("chunk-and-drain", engines.CHUNK, engines.chunk_and_drain(subject.model), work),
        Contestant("ours", 2 * rows, engines.Ours(subject.model, 2 * rows), work),
    ]
    for row, _ in _in_turns(subject, contestants, rounds):
        yield row


def samples(subject: Subject, count: int, prompt_tokens: int, new_tokens: int, rounds: int) -> Iterator[Row]:
    """Many samples of one long prompt: prompt sharing against the same engine where no two prompts begin alike,
    and against mlx-lm given the copies."""
    prompt = subject.prompt_of(prompt_tokens)
    alike = requests_for([prompt] * count, [new_tokens] * count)
    first_tokens = sorted(set(prompt))[:count]
    different = requests_for([[first, *prompt[1:]] for first in first_tokens], [new_tokens] * count)
    ours = engines.Ours(subject.model, count)
    contestants = [
        Contestant("ours", count, ours, alike),
        Contestant("ours, unshared", count, ours, different),
        Contestant("mlx_lm.batch_generate", count, engines.mlx_lm(subject.model, count), alike),
    ]
    for row, _ in _in_turns(subject, contestants, rounds):
        yield row


def steps(subject: Subject, rows: int, context: int, new_tokens: int, rounds: int) -> Iterator[Row]:
    """Every step's time where rows of four lengths, the longest `context`, are decoded side by side and none ends.

    The trace crosses a multiple of 256, where mlx-lm's cache grows by copying itself. Milliseconds, of the clock and
    of processor time, are of the steps of all rows together, but the first (it waits for prompts) and the last (rows
    end).
    """
    share_of_longest = (0.80, 0.87, 0.93, 1.0)
    prompts = [subject.prompt_of(int(context * share), 16 * i) for i, share in enumerate(share_of_longest)]
    side_by_side = [prompts[i * len(prompts) // rows] for i in range(rows)]
    work = requests_for(side_by_side, [new_tokens] * rows)
    ticks: list[tuple[float, float]] = []

    def tick(drawn: int) -> None:
        if drawn == rows:
            ticks.append((time.perf_counter(), time.process_time()))

    contestants = [
        Contestant("ours", rows, engines.Ours(subject.model, rows, tick), work),
        Contestant("mlx_lm GenerationBatch", rows, engines.mlx_lm_side_by_side(subject.model, tick), work),
    ]
    cached = sum(map(len, side_by_side)) + rows * new_tokens / 2
    for row, trace in _in_turns(subject, contestants, rounds, lambda: (ticks.copy(), ticks.clear())[0]):
        wall, processor = np.diff(trace[:-1], axis=0).T
        row |= {
            "longest_prompt": context,
            "new_tokens": new_tokens,
            "milliseconds": (1000 * wall).round(2).tolist(),
            "processor_milliseconds": (1000 * processor).round(2).tolist(),
            "bandwidth_share": bandwidth_share(subject.size, rows, cached, float(np.median(wall))),
        }
        yield row


def bandwidth_share(size: budget.ModelSize, rows: int, cached_tokens: float, seconds: float) -> float | None:
    """What a step must read (weights, and keys and values of every row without its padding), as a share of what the
    chip could read in that time. None where the chip's bandwidth is not known."""
    described = machine.describe()
    if described["chip"] not in budget.CHIPS:
        return None
    must = size.read_bytes(rows) + cached_tokens * size.kv_bytes
    return round(must / (budget.chip_of(described).bytes_per_second * seconds), 3)


def _in_turns(
    subject: Subject, contestants: list[Contestant], rounds: int, trace: Callable[[], list[Any]] = list
) -> Iterator[tuple[Row, list[Any]]]:
    """(row, what `trace` gives after the run) of each contestant and round. Raises AssertionError where an engine
    left out a token."""
    for contestant in contestants:  # kernels are compiled, buffers touched
        contestant.run([replace(request, max_tokens=3) for request in contestant.requests[:4]])
        trace()
    for number, contestant in turns(contestants, rounds):
        completions, measured = measure(lambda run=contestant.run, work=contestant.requests: run(work))
        engines.check(contestant.requests, completions, subject.size.vocabulary)
        row = {
            "engine": contestant.name,
            "rows": contestant.rows,
            "round": number,
            "requests": len(contestant.requests),
            "prompt_tokens": sum(len(request.prompt_ids) for request in contestant.requests),
            "tokens": sum(map(len, completions.values())),
            **measured,
            "expected_peak_bytes": round(getattr(contestant.run, "expected_peak", 0)) or None,
            "policy": POLICY.name(),
        }
        yield row, trace()
