"""Greedy and sampled completions: MLX's batched engine beside a plain loop with a cache in PyTorch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from mlx_ssd import heartbeat
from mlx_ssd.decoding.divergence import boundary_distance
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.decoding.rng import sample_key, uniform_u32
from mlx_ssd.export.texts import MAX_TOKENS
from mlx_ssd.parity.row import Row
from mlx_ssd.parity.sides import free_mlx, in_mlx, in_torch
from mlx_ssd.parity.subject import Subject

NEAR = 1e-5


def left_out(subject: Subject) -> str | None:
    return "a model that is run layer by layer generates nothing" if subject.by_layer else None


def rows(subject: Subject, work: Path) -> list[Row]:
    policies = {"greedy": DecodingPolicy(0.0), "sampled": subject.sampling}
    model, tokenizer = in_mlx(subject, adapted=True)
    stops = set(tokenizer.eos_token_ids)
    found = {name: _in_mlx(subject, model, policy, stops) for name, policy in policies.items()}
    del model
    free_mlx()
    twin = in_torch(subject, adapted=True)[0]
    return [_row(subject, name, policy, found[name], twin, stops) for name, policy in policies.items()]


def _in_mlx(subject: Subject, model: Any, policy: Any, stops: set[int]) -> dict[int, list[int]]:
    from mlx_ssd.sampling.engine import Request, generate

    requests = [
        Request(number, list(text.prompt_ids), policy, _key(subject, number), MAX_TOKENS)
        for number, text in enumerate(subject.texts)
    ]
    return {done.key: done.completion_ids for done in generate(model, requests, stops, rows=len(requests))}


def _row(subject: Subject, name: str, policy: Any, found: dict[int, list[int]], twin: Any, stops: set[int]) -> Row:
    from mlx_ssd.torch_ref.generation import complete
    from mlx_ssd.torch_ref.model import logits

    same = total = parted = 0
    distance = 0.0
    for number, text in enumerate(subject.texts):
        expected = complete(twin, text.prompt_ids, policy, _key(subject, number), MAX_TOKENS, stops)
        heartbeat.alive()
        total += len(expected)
        if found[number] == expected:
            same += len(expected)
            continue
        parted += 1
        at = next((i for i, pair in enumerate(zip(found[number], expected, strict=False)) if pair[0] != pair[1]), None)
        if at is None:  # the same tokens, and one ended where the other went on: no draw explains that
            distance = math.inf
            continue
        same += at
        before = logits(twin, text.prompt_ids, [*expected[:at], 0])[-1]
        u32 = int(uniform_u32(_key(subject, number), np.array(at)))
        distance = max(distance, boundary_distance(policy, before, u32))
    note = f"{parted} of {len(subject.texts)} completions part, where the draw stood so near to another token"
    why = "rule 3 of docs/method.md: the probability by which a draw that rounding changes may miss its boundary"
    figures = {"max_abs": distance, "top1": same / total}
    return Row(f"{name} generation, cached", figures, "max_abs", NEAR, why, note if parted else f"{total} tokens")


def _key(subject: Subject, number: int) -> tuple[int, int]:
    return sample_key(subject.source.recipe.seed, "parity", "generation", number)
