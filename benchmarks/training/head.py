"""The loss alone, hidden states to their gradient: ours, a chunk of positions at a time, against all logits at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from benchmarks.journal import Row
from benchmarks.turns import measure, turns
from mlx_ssd.training.batches import Batch
from mlx_ssd.training.forward import Head
from mlx_ssd.training.loss import step_gradient

OURS, FULL = "ours", "full cross-entropy"


@dataclass(frozen=True)
class Case:
    """An output head, and the completion positions that go through it."""

    positions: int
    hidden: int
    vocabulary: int
    bits: int | None = None  # None: float32
    group_size: int = 64

    @property
    def name(self) -> str:
        kind = f"{self.bits} bits" if self.bits else "float32"
        return f"{self.positions:,} x {self.hidden:,} x {self.vocabulary:,}, {kind}"


# The first is Qwen3-0.6B's head. Products with quantized weights are slow on a CPU: those are small.
CASES = (Case(2048, 1024, 151_936), Case(256, 256, 8_192, bits=4), Case(256, 256, 8_192, bits=8))


class States(nn.Module):
    """In place of a model's layers: hidden states that are the only parameters."""

    def __init__(self, states: mx.array):
        super().__init__()
        self.states = states[None]

    def __call__(self, tokens: mx.array) -> mx.array:
        return self.states


class HeadAlone(nn.Module):
    def __init__(self, states: mx.array, head: nn.Module):
        super().__init__()
        self.model = States(states)
        self.lm_head = head.freeze()


def loss(cases: Sequence[Case], rounds: int) -> Iterator[Row]:
    """A row a case, engine and round; `gradient_difference` is the greatest, by the greatest of the gradient."""
    for case in cases:
        yield from _of_case(case, rounds)


def _of_case(case: Case, rounds: int) -> Iterator[Row]:
    mx.random.seed(0)
    head = nn.Linear(case.hidden, case.vocabulary, bias=False)
    states = 4 * mx.random.normal((case.positions, case.hidden))  # logits of a model's spread, 2.3
    targets = np.random.default_rng(0).integers(0, case.vocabulary, case.positions).astype(np.int32)
    expected_head = head
    if case.bits:
        head = nn.QuantizedLinear.from_linear(head, case.group_size, case.bits)
        expected_head = nn.Linear(case.hidden, case.vocabulary, bias=False)
        expected_head.weight = mx.dequantize(head.weight, head.scales, head.biases, case.group_size, case.bits)
    model = HeadAlone(states, head)
    mx.eval(model.parameters(), expected_head.parameters())

    positions = np.arange(case.positions, dtype=np.int32)
    batch = Batch(positions[None], positions, targets)

    def ours() -> mx.array:
        _, gradient = step_gradient(model, Head("lm_head", tied=False), [batch])
        return gradient["model.states"][0]

    @mx.value_and_grad
    def whole(states: mx.array) -> mx.array:
        return nn.losses.cross_entropy(expected_head(states), mx.array(targets), reduction="mean")

    def theirs() -> mx.array:
        found = whole(states)
        mx.eval(found)
        return found[1]

    expected = np.array(theirs())
    for number, (engine, work) in turns(((OURS, ours), (FULL, theirs)), rounds):
        gradient, measured = measure(work)
        difference = np.abs(np.array(gradient) - expected).max() / np.abs(expected).max()
        yield {
            "case": case.name,
            "engine": engine,
            "round": number,
            "positions": case.positions,
            **measured,
            "gradient_difference": float(f"{difference:.2g}"),
        }
