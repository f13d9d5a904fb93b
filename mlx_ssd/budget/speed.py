"""Seconds of the work that a run is made of: by formula from a chip's published figures, or from a calibration.

With P the parameters, A = layers x heads x head size, c a token's context, B the rows decoded side by side, by formula:

    F(c)     = 2 P + 4 A c FLOPs of a token; of a mixture only the active experts count
    decoding = max((W + B c KV) / (70 % of the bandwidth), B F(c) / prefill rate) + 1 ms a step of B tokens, with W the
               weights that are read and KV the bytes that a token of context takes
    training = (F(s) + S (F(s) + 4 A s)) / training rate a token, with S the share of the layers that are trained: no
               gradient goes below the lowest; s is the keys that are computed for a query, all of a short sample, of a
               longer one (c + 256) / 2, and then 6 A s (training/blockwise.py). Soft targets add a forward pass, F(s),
               recomputed layers S F(s), the gradient of all weights S F(s)

For one row the decoding formula gives 145 tokens/s on an M4 Max and 44 on an M3 Pro for Qwen3-4B in 4 bits;
published are 135 (mlx-lm's BENCHMARKS.md) and 45 (mlx-lm issue 1569). For many rows nothing is published.

A calibration (planning/calibration.py) measures the same work on this machine, on few layers of the model's own widths:
a layer more costs what it cost from the few to the fewer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log
from typing import Any, Protocol

from mlx_ssd.budget.chips import PREFILL_FLOPS_PER_GPU_CORE, TRAINING_FLOPS_PER_GPU_CORE, Chip
from mlx_ssd.budget.model_size import ModelSize
from mlx_ssd.budget.training import BLOCK
from mlx_ssd.sections import Training

BANDWIDTH_SHARE = 0.7  # of what Apple publishes
STEP_SECONDS = 0.001  # launching kernels and drawing tokens, a decoding step


class Speed(Protocol):
    start_seconds: float  # of a process that computes, until its model is there

    @property
    def source(self) -> str: ...  # where the figures come from, in a sentence

    def decoding_step(self, size: ModelSize, rows: int, context: float) -> float:
        """One token for each of `rows`, whose contexts are `context` tokens long on average."""

    def joining(self, size: ModelSize) -> float:
        """What a row costs beside its steps."""

    def prefill(self, size: ModelSize, tokens: int) -> float:
        """A prompt of so many."""

    def forward(self, size: ModelSize, train: Training, length: int) -> float:
        """The loss of a sample of so many tokens."""

    def training(self, size: ModelSize, train: Training, length: int, recompute: bool) -> float:
        """The loss of a sample of so many tokens, and its gradient."""


@dataclass(frozen=True)
class ChipSpeed:
    """By formula."""

    chip: Chip
    start_seconds: float = 0.0

    @property
    def source(self) -> str:
        return (
            f"{BANDWIDTH_SHARE:.0%} of {self.chip.bytes_per_second / 1e9:.0f} GB/s; {self.chip.gpu_cores} GPU cores of "
            f"{PREFILL_FLOPS_PER_GPU_CORE / 1e12:.2f} TFLOPS, in training {TRAINING_FLOPS_PER_GPU_CORE / 1e12:.2f}: "
            "published figures, not yet measured on a Mac"
        )

    def decoding_step(self, size: ModelSize, rows: int, context: float) -> float:
        read = size.read_bytes(rows) + rows * (context * size.kv_bytes + size.window_bytes)
        reading = read / (BANDWIDTH_SHARE * self.chip.bytes_per_second)
        return max(reading, rows * size.flops(context) / self.chip.prefill_flops) + STEP_SECONDS

    def joining(self, size: ModelSize) -> float:
        return 0.0  # nothing is published of it

    def prefill(self, size: ModelSize, tokens: int) -> float:
        return tokens * size.flops(tokens / 2) / self.chip.prefill_flops

    def forward(self, size: ModelSize, train: Training, length: int) -> float:
        passes = 2 if train.targets == "distribution" else 1
        return passes * length * size.flops(_keys(length)) / self.chip.training_flops

    def training(self, size: ModelSize, train: Training, length: int, recompute: bool) -> float:
        passes = 1 + recompute + (train.method == "full")
        attention = (6 if length > BLOCK else 4) * size.attention * _keys(length)
        backward = size.trained_share(train.num_layers) * (passes * size.flops(_keys(length)) + attention)
        return self.forward(size, train, length) + length * backward / self.chip.training_flops


def _keys(length: int) -> float:
    """That are computed for a query of a sample in training, on average."""
    return (length + BLOCK) / 2 if length > BLOCK else length


@dataclass(frozen=True)
class Cost:
    """Seconds of something: what does not depend on the layers, and of each layer."""

    fixed: float
    layer: float

    def of(self, layers: float) -> float:
        return self.fixed + layers * self.layer


@dataclass(frozen=True)
class CalibratedSpeed:
    """From measurements of the model's own widths on this machine."""

    measured: Mapping[str, Any]  # as planning/measuring.py writes it
    load: float  # of the machine while it was measured

    @property
    def source(self) -> str:
        return f"measured here on few layers of the model's widths, at a load of {self.load:.1f}"

    @property
    def start_seconds(self) -> float:
        return self.measured["start_seconds"]

    def decoding_step(self, size: ModelSize, rows: int, context: float) -> float:
        points = self.measured["decoding"]  # of like contexts, by rows
        longer = context - points[0]["context"]
        attention = size.layers * rows * longer * self.measured["attention_seconds"]
        steps = [Cost(point["fixed"], point["layer"]).of(size.layers) for point in points]
        return max(_between([point["rows"] for point in points], steps, rows) + attention, min(steps))

    def joining(self, size: ModelSize) -> float:
        return Cost(**self.measured["joining"]).of(size.layers)

    def prefill(self, size: ModelSize, tokens: int) -> float:
        return tokens * Cost(**self.measured["prefill"]).of(size.layers)

    def forward(self, size: ModelSize, train: Training, length: int) -> float:
        return length * self._longer(size, length) * Cost(**self._of(train)["forward"]).of(size.layers)

    def training(self, size: ModelSize, train: Training, length: int, recompute: bool) -> float:
        costs = self._of(train)
        forward, whole = Cost(**costs["forward"]), Cost(**costs["step"])
        if recompute != self.measured["recompute"]:  # then a layer's forward pass is made once more, or once less
            again = forward.layer / (2 if train.targets == "distribution" else 1)
            whole = Cost(whole.fixed, whole.layer + (again if recompute else -again))
        trained = size.layers * size.trained_share(train.num_layers)
        a_token = whole.of(trained) + (size.layers - trained) * forward.layer
        return length * self._longer(size, length) * a_token

    def _longer(self, size: ModelSize, length: int) -> float:
        """What a token of a sample of so many costs, of what one of the sample that was measured did."""
        return size.flops(_keys(length)) / size.flops(_keys(self.measured["length"]))

    def _of(self, train: Training) -> Mapping[str, Any]:
        return self.measured["training"][train.targets]


def _between(rows: list[int], seconds: list[float], wanted: int) -> float:
    """Between neighbours on a line in logarithms; outside of them in proportion, or as the least."""
    if wanted >= rows[-1]:
        return seconds[-1] * wanted / rows[-1]
    if wanted <= rows[0]:
        return seconds[0]
    place = bisect_left(rows, wanted)
    share = log(wanted / rows[place - 1]) / log(rows[place] / rows[place - 1])
    return exp((1 - share) * log(seconds[place - 1]) + share * log(seconds[place]))
