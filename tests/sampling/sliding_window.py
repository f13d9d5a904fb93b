"""Run by test_engine.py in a process of its own: a model whose caches rotate, batched and each request alone.

Such caches are dropped and joined by copies, where the embedded model's get new rows in place.
Prints one JSON object: the completions compared, and how many differ in 5 rows and in 32.
"""

import json

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map
from mlx_lm.models import gemma3_text

from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.sampling.engine import Request, generate

STOPS = range(8)


def tiny_gemma() -> gemma3_text.Model:
    """Two layers of four see 24 tokens back; random weights."""
    config = gemma3_text.ModelArgs(
        model_type="gemma3_text",
        hidden_size=32,
        num_hidden_layers=4,
        intermediate_size=64,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        vocab_size=200,
        sliding_window=24,
        sliding_window_pattern=2,
        query_pre_attn_scalar=16,
    )
    mx.random.seed(0)
    model = gemma3_text.Model(config)
    model.update(tree_map(lambda x: mx.random.normal(x.shape) * 0.3 if x.ndim > 1 else x, model.parameters()))
    return model


def main() -> None:
    model = tiny_gemma()
    random = np.random.default_rng(0)
    prompts = [random.integers(4, 200, length).tolist() for length in (12, 40, 30, 40)]
    policies = (DecodingPolicy(1.0, 20, 0.8), DecodingPolicy(0.7))
    requests = [
        Request((n, policy, i), prompt, policy, (n, i), 20 + 4 * i)
        for n, prompt in enumerate(prompts)
        for policy in policies
        for i in range(4)
    ]
    alone = {c.key: c for r in requests for c in generate(model, [r], STOPS, rows=1)}
    together = [{c.key: c for c in generate(model, requests, STOPS, rows)} for rows in (5, 32)]
    differ = sum(found[key] != alone[key] for found in together for key in alone)
    stopped = sum(c.finish_reason == "stop" for c in alone.values())
    print(json.dumps({"compared": 2 * len(alone), "differ": differ, "stopped": stopped}))


main()
