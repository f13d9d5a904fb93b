"""Run by test_engine.py in a process of its own: many policies on the same prompts, in one batch and each alone.

Prints one JSON object: the completions compared and how many differ, the prompt tokens that the model ran for
all together, and those of the prompts, each counted once.
"""

import json
import os
from collections import Counter
from typing import Any

import mlx.core as mx

from mlx_ssd import models
from mlx_ssd.decoding.policy import DecodingPolicy, StagedPolicy
from mlx_ssd.decoding.rng import sample_key
from mlx_ssd.problems import read_problems
from mlx_ssd.prompts import render
from mlx_ssd.sampling.engine import Request, generate
from mlx_ssd.sections import Model, ProblemSource, Prompt

POLICIES = (
    DecodingPolicy(1.6, 20, 0.8),
    DecodingPolicy(0.8, 0, 0.9, "mlx_lm"),
    StagedPolicy(DecodingPolicy(1.6, 20, 0.8), DecodingPolicy(1.1, 10, 0.8)),
    DecodingPolicy(0.0),
    DecodingPolicy(1.0),
)


class Counted:
    """The model, counting the prompt tokens that go through it."""

    def __init__(self, model: Any):
        self._model = model
        self.prompt_tokens = 0

    def __call__(self, inputs: mx.array, **rest: Any) -> mx.array:
        if inputs.shape[1] > 1:
            self.prompt_tokens += inputs.size
        return self._model(inputs, **rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def main() -> None:
    model, tokenizer = models.load(models.locate(Model()), "float32")
    prompts = {p.id: render(tokenizer, p.prompt, Prompt()) for p in read_problems(ProblemSource(limit=60), "test")}
    # Of one length, so that no padding is counted.
    length = Counter(map(len, prompts.values())).most_common(1)[0][0]
    prompts = dict([(id, ids) for id, ids in prompts.items() if len(ids) == length][:3])
    requests = [
        Request((id, policy.name(), i), ids, policy, sample_key(0, "eval", id, i), 48)
        for id, ids in prompts.items()
        for policy in POLICIES
        for i in range(2)
    ]
    together = Counted(model)
    # 7 rows for 10 requests a prompt: most prompts straddle two admissions.
    found = {c.key: c for c in generate(together, requests, tokenizer.eos_token_ids, rows=7)}
    alone = [c for r in requests for c in generate(model, [r], tokenizer.eos_token_ids, rows=1)]
    shared = len(os.path.commonprefix([ids[:-1] for ids in prompts.values()]))
    answer = {
        "compared": len(alone),
        "differ": sum(found[c.key] != c for c in alone),
        "stopped": sum(c.finish_reason == "stop" for c in alone),
        "distinct": len({tuple(c.completion_ids) for c in alone}),
        "prompt_tokens": together.prompt_tokens,
        # What all begin with goes through once. The last token of a prompt goes through apart, and is not counted.
        "expected_prompt_tokens": shared + len(prompts) * (length - 1 - shared),
    }
    print(json.dumps(answer))


main()
