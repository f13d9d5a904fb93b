"""What all engines are given: the model, the prompts, the lengths and the decoding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from mlx_ssd import budget, models
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.decoding.rng import sample_key
from mlx_ssd.problems import read_problems
from mlx_ssd.prompts import render
from mlx_ssd.sampling.engine import Request
from mlx_ssd.sections import Model, ProblemSource, Prompt

POLICY = DecodingPolicy(temperature=1.6, top_k=20, top_p=0.8)
MEDIAN_TOKENS, P95_TOKENS = 75, 225
SEED = 0


@dataclass(frozen=True)
class Subject:
    """A loaded model, and the rendered prompts of the embedded training problems."""

    name: str
    model: Any
    prompts: list[list[int]]
    config: dict[str, Any]

    @classmethod
    def load(cls, path: str, dtype: str, prompts: int) -> Subject:
        """Raises BadInput for a model that is not there or cannot be read."""
        source = models.locate(Model(path=path))
        model, tokenizer = models.load(source, dtype)
        problems = read_problems(ProblemSource(limit=prompts), "train")
        rendered = [render(tokenizer, problem.prompt, Prompt()) for problem in problems]
        name = path.rstrip("/").rpartition("/")[2]
        return cls(name, model, rendered, models.read_config(Model(path=path)))

    @property
    def dtype(self) -> str:
        parameters = (array for _, array in tree_flatten(self.model.parameters()))
        found = next(array.dtype for array in parameters if mx.issubdtype(array.dtype, mx.floating))
        return str(found).rpartition(".")[2]

    @property
    def size(self) -> budget.ModelSize:
        return budget.ModelSize.of(self.config)

    def prompt_of(self, tokens: int, first: int = 0) -> list[int]:
        """A prompt of exactly so many tokens: rendered prompts one after the other, from the `first` on."""
        joined: list[int] = []
        while len(joined) < tokens:
            joined += self.prompts[first % len(self.prompts)]
            first += 1
        return joined[:tokens]


def requests_for(prompts: Sequence[list[int]], max_tokens: Sequence[int]) -> list[Request]:
    """One request a prompt, its key the place in the list. Nothing tells an engine the lengths but max_tokens, which
    in a real run is one large number for all: an engine that sorted by it would cheat here."""
    return [
        Request(i, prompt, POLICY, sample_key(SEED, "benchmark", str(i), 0), int(tokens))
        for i, (prompt, tokens) in enumerate(zip(prompts, max_tokens, strict=True))
    ]


def lengths(count: int) -> np.ndarray:
    """Tokens of `count` completions: log-normal, the same at every call."""
    sigma = math.log(P95_TOKENS / MEDIAN_TOKENS) / 1.6449  # the normal distribution's 95th percentile
    drawn = np.random.default_rng(SEED).lognormal(math.log(MEDIAN_TOKENS), sigma, count)
    return np.maximum(drawn.round().astype(int), 1)
