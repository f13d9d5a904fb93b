"""Run by test_engine.py in a process of its own: the same requests alone, in threes and in 32 rows.

    python -m tests.sampling.divergence REQUESTS [DTYPE]

Prints one JSON object: how many completions differ from those drawn alone and, for each, the distance
of the uniform at the first different token from a boundary of the cumulative distribution. In another DTYPE also how
many of those drawn alone differ from the model's in float32.
"""

import json
import sys
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_ssd import assets, models
from mlx_ssd.decoding.divergence import boundary_distance
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.decoding.rng import sample_key, uniform_u32
from mlx_ssd.problems import read_problems
from mlx_ssd.prompts import render
from mlx_ssd.sampling.engine import Request, generate
from mlx_ssd.sections import Model, ProblemSource, Prompt

REQUESTS = int(sys.argv[1])
DTYPE = sys.argv[2] if len(sys.argv) > 2 else "float32"
POLICY = DecodingPolicy(1.6, 20, 0.8)


def main() -> None:
    model, tokenizer = models.load(models.locate(Model()), DTYPE)
    problems = read_problems(ProblemSource(limit=REQUESTS), "test")
    requests = [
        Request(p.id, render(tokenizer, p.prompt, Prompt()), POLICY, sample_key(0, "eval", p.id, 0), 128)
        for p in problems
    ]

    def drawn(rows: int, model: Any = model) -> dict[str, list[int]]:
        completed = generate(model, requests, tokenizer.eos_token_ids, rows)
        return {c.key: c.completion_ids for c in completed}

    alone = drawn(1)
    differ, distances = 0, []
    for rows in (3, 32):
        together = drawn(rows)
        for request in requests:
            a, b = alone[request.key], together[request.key]
            if a == b:
                continue
            differ += 1
            at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            logits = model(mx.array([request.prompt_ids + a[:at]]))[0, -1]
            u32 = int(uniform_u32(request.random_key, np.array(at)))
            distances.append(boundary_distance(POLICY, np.array(logits.astype(mx.float32)), u32))
    lengths = sum(len(ids) for ids in alone.values())
    facts = {"compared": 2 * len(requests), "tokens": lengths, "differ": differ, "distances": distances}
    if DTYPE != "float32":
        exact = drawn(1, models.load(models.locate(Model()), "float32")[0])
        facts["differ_from_float32"] = sum(exact[key] != ids for key, ids in alone.items())
    print(json.dumps(facts))


assert assets.model_path().exists()
main()
