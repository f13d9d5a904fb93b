"""One layer's attention, forward and backward pass: ours, a block of queries at a time, against MLX's own.

Predicted, from the pairs that are computed: the square falls to blocks of 256 queries in memory, of 4,096 tokens to
0.1 of it or less; in time 7 products of half of the square stand against 6 of the whole one, 0.6 of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from benchmarks.journal import Row
from benchmarks.turns import measure, turns
from mlx_ssd.attention import plain_attention
from mlx_ssd.training.blockwise import blockwise_attention

OURS, PLAIN = "ours", "plain attention"


@dataclass(frozen=True)
class Case:
    """One sample. The heads of Qwen3-0.6B."""

    tokens: int
    heads: int = 16
    of_keys: int = 8
    size: int = 128

    @property
    def name(self) -> str:
        return f"{self.tokens:,} tokens, {self.heads} heads of {self.size}"


CASES = (Case(1024), Case(2048), Case(4096))


def attention(cases: Sequence[Case], rounds: int) -> Iterator[Row]:
    """A row a case, engine and round; `gradient_difference` is the greatest, by the greatest of the gradient."""
    for case in cases:
        mx.random.seed(0)
        arrays = [
            mx.random.normal((1, heads, case.tokens, case.size))
            for heads in (case.heads, case.of_keys, case.of_keys, case.heads)
        ]
        mx.eval(arrays)
        scale = case.size**-0.5
        ours = _differentiated(lambda q, k, v: blockwise_attention(q, k, v, scale, "causal"), arrays)  # noqa: B023
        plain = _differentiated(
            lambda q, k, v: plain_attention(q, k, v, None, scale=scale, mask="causal"),  # noqa: B023
            arrays,
        )
        expected = [np.array(gradient) for gradient in plain()]
        for number, (engine, work) in turns(((OURS, ours), (PLAIN, plain)), rounds):
            gradients, measured = measure(work)
            difference = max(
                np.abs(np.array(a) - b).max() / np.abs(b).max() for a, b in zip(gradients, expected, strict=True)
            )
            yield {
                "case": case.name,
                "engine": engine,
                "round": number,
                "tokens": case.tokens,
                **measured,
                "gradient_difference": float(f"{difference:.2g}"),
            }


def _differentiated(of: Callable[..., mx.array], arrays: Sequence[mx.array]) -> Callable[[], list[mx.array]]:
    """Evaluates the gradients of queries, keys and values; the output first, as a model's forward pass does."""
    *inputs, cotangent = arrays

    def work() -> list[mx.array]:
        output, gradients = mx.vjp(lambda *given: [of(*given)], inputs, [cotangent])
        mx.eval(output)
        mx.eval(gradients)
        return gradients

    return work
