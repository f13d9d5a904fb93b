"""From a configuration to its row."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlx_ssd import machine
from mlx_ssd.bench import bandwidth, battery
from mlx_ssd.bench.configurations import Configuration
from mlx_ssd.bench.worker import Worker, working

Row = dict[str, Any]
PERCENTILES = (50, 95, 99)


@dataclass
class Measured:
    """A configuration at work: what its process says, request by request."""

    worker: Worker
    loaded: dict[str, Any]
    warmup: int
    started: float = field(default_factory=time.time)
    repetitions: list[dict[str, Any]] = field(default_factory=list)
    readings: list[battery.Reading | None] = field(default_factory=list)

    @classmethod
    def begin(cls, worker: Worker, loads: int, warmup: int) -> Measured:
        once = worker.configuration.subject.made_in_memory  # that is not timed
        found = cls(worker, worker.ask(f"load {1 if once else loads}"), warmup)
        for _ in range(warmup):
            worker.ask("repeat")
        found.started = time.time()
        return found

    def repeat(self) -> None:
        self.repetitions.append(self.worker.ask("repeat"))
        self.readings.append(battery.read())

    def go_on_from(self, before: Measured) -> None:
        """What another process measured of the same configuration counts too; memory is this one's own."""
        self.loaded["seconds"] = before.loaded["seconds"] + self.loaded["seconds"]
        self.repetitions = [*before.repetitions, *self.repetitions]
        self.readings, self.started = [*before.readings, *self.readings], before.started

    def series(self) -> dict[str, list[float]]:
        """What is measured at each repetition."""
        load, found = self.worker.configuration.load, self.repetitions
        return {
            "ttft_s": [one["ttft"] for one in found],
            "prompt_tps": [load.batch * load.prompt / one["ttft"] for one in found],
            "decode_tps": [load.batch * len(one["steps"]) / sum(one["steps"]) for one in found],
        }

    def row(self, rate: dict[str, Any]) -> Row:
        """Of all repetitions. rate: of bandwidth."""
        load, loaded = self.worker.configuration.load, self.loaded
        memory, series = self.worker.ask("memory"), self.series()
        steps = np.array([step for one in self.repetitions for step in one["steps"]])
        kv_bytes = self.repetitions[-1]["kv_bytes"]
        read = bandwidth.step_bytes(loaded, kv_bytes, load)
        row = {
            **described(self.worker.configuration),
            "bits": loaded["bits"],
            "quantized": loaded["quantized"],
            "dtype": loaded["dtype"],
            "parameters": loaded["parameters"],
            "warmup": self.warmup,
            "repetitions": len(self.repetitions),
            **({} if self.worker.configuration.subject.made_in_memory else {"load_s": spread(loaded["seconds"])}),
            **{name: spread(values) for name, values in series.items()},
            "latency_ms": {f"p{p}": 1000 * float(np.percentile(steps, p)) for p in PERCENTILES},
            **memory,
            "mlx_steady_bytes": self.repetitions[-1]["steady_bytes"],
            "weight_bytes": loaded["weight_bytes"],
            "kv_bytes": kv_bytes,
            "step_bytes": read,
            "bandwidth": rate,
            "roofline_share": read / float(steps.mean()) / rate["bytes_per_second"],
        }
        if drawn := battery.watts(self.readings, self.started):
            tokens = load.batch * sum(len(one["steps"]) + 1 for one in self.repetitions)
            seconds = sum(one["ttft"] + sum(one["steps"]) for one in self.repetitions)
            row["energy"] = {"watts": drawn, "joules_per_token": drawn * seconds / tokens, "of": "the whole machine"}
        return row | {"series": series, "load_average": round(os.getloadavg()[0], 1), **where()}


def measure(
    configurations: Sequence[Configuration], repetitions: int = 5, warmup: int = 1, rate: dict[str, Any] | None = None
) -> Iterator[Row]:
    """A row each, as it is finished. Raises BadInput or WorkFailed for one that cannot be measured."""
    for configuration in configurations:
        rate = rate or rate_of(configuration)
        with working(configuration) as worker:
            measured = Measured.begin(worker, repetitions, warmup)
            for _ in range(repetitions):
                measured.repeat()
            yield measured.row(rate)


def interleaved(configurations: Sequence[Configuration], rounds: int, warmup: int) -> list[Row]:
    """A row each, of repetitions that took turns: every round each once, and every second round in opposite order, so
    that what else the machine does falls on all alike. All models are in memory together."""
    rate = rate_of(configurations[0])
    with ExitStack() as stack:
        all_measured = []
        for configuration in configurations:  # one after another: loading is timed
            all_measured.append(Measured.begin(stack.enter_context(working(configuration)), 1, warmup))
        for number in range(rounds):
            for measured in all_measured[:: -1 if number % 2 else 1]:
                measured.repeat()
        return [measured.row(rate) for measured in all_measured]


def in_sweeps(
    configurations: Sequence[Configuration], repetitions: int, sweeps: int, warmup: int = 1
) -> Iterator[Row | None]:
    """As `interleaved`, of at least so many repetitions, for models that may not fit into memory together: each sweep
    loads them one after the other, every second one in opposite order. None after each, and at the end their rows."""
    rate, found, rows = rate_of(configurations[0]), {}, {}
    for sweep in range(sweeps):
        for configuration in configurations[:: -1 if sweep % 2 else 1]:
            with working(configuration) as worker:
                measured = Measured.begin(worker, 1, warmup)
                if sweep:
                    measured.go_on_from(found[configuration])
                for _ in range(math.ceil(repetitions / sweeps)):
                    measured.repeat()
                found[configuration] = measured
                if sweep == sweeps - 1:
                    rows[configuration] = measured.row(rate)
            yield None
    yield from (rows[configuration] for configuration in configurations)


def rate_of(configuration: Configuration) -> dict[str, Any]:
    """How fast this machine reads memory, and how that is known."""
    if known := bandwidth.of_table(machine.describe()):
        return known
    with working(configuration) as worker:  # a copy's arrays are not to be in the memory that is measured
        return worker.ask("bandwidth")


def described(configuration: Configuration) -> Row:
    subject, load = configuration.subject, configuration.load
    return {
        "v": 1,
        "model": subject.name,
        "revision": subject.revision,
        "adapter": subject.way,
        "prompt_tokens": load.prompt,
        "generated_tokens": load.generated,
        "batch": load.batch,
    }


def where() -> Row:
    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        "threads": os.environ.get("OPENBLAS_NUM_THREADS", "all"),
        "versions": machine.versions(),
        "machine": machine.describe(),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, and standard deviation (n - 1) where there are two."""
    found = {"mean": float(np.mean(values))}
    return found | ({"std": float(np.std(values, ddof=1))} if len(values) > 1 else {})
