"""A completion token by token with a cache of keys and values, one prompt at a time: a twin of `sampling.engine`."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch

from mlx_ssd.decoding.draw import Policy
from mlx_ssd.decoding.rng import uniform_u32
from mlx_ssd.torch_ref.policy import draw


@torch.no_grad()
def complete(
    model: Any,
    prompt_ids: Sequence[int],
    policy: Policy,
    random_key: tuple[int, int],
    max_tokens: int,
    stop_tokens: Collection[int],
) -> list[int]:
    """The tokens drawn, with the stop token when one was; the uniform of each is that of its position."""
    from transformers import DynamicCache

    tokens: list[int] = []
    inputs, cache = list(prompt_ids), DynamicCache(config=model.config)
    named = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"  # until 5.24
    while len(tokens) < max_tokens and not (tokens and tokens[-1] in stop_tokens):
        logits = model(torch.tensor([inputs]), use_cache=True, **{named: cache}).logits[:, -1]
        tokens.append(int(draw(logits, policy, uniform_u32(random_key, np.array([len(tokens)])))))
        inputs = tokens[-1:]
    return tokens
