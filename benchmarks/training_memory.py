"""What a training step holds in memory, a token: the coefficients of mlx_ssd/budget.py.

    python -m benchmarks.training_memory

Small Qwen3 models in bfloat16, 4-bit base, rank 16 on every linear layer, as on a Mac; one dimension is doubled
at a time. Peaks of two depths give a layer's share, peaks of two lengths take out what grows with the square of
the length (MLX's fused attention on Metal does not). A few minutes on two Linux cores; the peak is MLX's own count.
"""

from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models import qwen3

from mlx_ssd.training.batches import Batch
from mlx_ssd.training.forward import output_head
from mlx_ssd.training.lora import attach_lora
from mlx_ssd.training.loss import step_gradient

BASE = {"hidden": 256, "mlp": 512, "query": 256, "key_value": 64}
HEAD = 64
DEPTHS = (4, 10)
LENGTHS = (64, 128)


def peak_bytes(dims: dict[str, int], layers: int, tokens: int, completion: int = 8, vocabulary: int = 512) -> int:
    """What one step of one row of `tokens` takes above the weights and the adapter."""
    mx.random.seed(0)
    arguments = qwen3.ModelArgs(
        model_type="qwen3",
        hidden_size=dims["hidden"],
        num_hidden_layers=layers,
        intermediate_size=dims["mlp"],
        num_attention_heads=dims["query"] // HEAD,
        num_key_value_heads=dims["key_value"] // HEAD,
        head_dim=HEAD,
        rms_norm_eps=1e-6,
        vocab_size=vocabulary,
        max_position_embeddings=4096,
        rope_theta=1e6,
        tie_word_embeddings=True,
    )
    model = qwen3.Model(arguments)
    model.set_dtype(mx.bfloat16)
    nn.quantize(model, 64, 4)
    attach_lora(model, SimpleNamespace(keys="all", num_layers=-1, rank=16, scale=2.0, dropout=0.0, seed=0))
    mx.eval(model.parameters())
    model.train()
    head = output_head(model)
    positions = np.arange(tokens - completion, tokens, dtype=np.int32)
    batch = Batch(np.ones((1, tokens), np.int32), positions, np.ones(completion, np.int32))
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    step_gradient(model, head, [batch])
    return mx.get_peak_memory() - before


def layer_bytes(dims: dict[str, int]) -> float:
    """A token's bytes in one layer, at length zero."""
    shallow, deep = DEPTHS
    short, long = (
        (peak_bytes(dims, deep, tokens) - peak_bytes(dims, shallow, tokens)) / (deep - shallow) / tokens
        for tokens in LENGTHS
    )
    return 2 * short - long  # LENGTHS are one to two


def logit_bytes(vocabulary: int) -> float:
    """Bytes a completion token and vocabulary entry."""
    few, many = (peak_bytes(BASE, 2, 128, completion, vocabulary) for completion in (16, 112))
    return (many - few) / (112 - 16) / vocabulary


def main() -> None:
    base = layer_bytes(BASE)
    print(f"a token in one layer of {BASE}: {base:,.0f} bytes")
    for name, width in BASE.items():
        more = layer_bytes(BASE | {name: 2 * width})
        print(f"{name:10} {(more - base) / width:5.1f} bytes a unit, token and layer", flush=True)
    for vocabulary in (4096, 16384):
        print(
            f"logits     {logit_bytes(vocabulary):5.1f} bytes a completion token and entry of {vocabulary:,}",
            flush=True,
        )


if __name__ == "__main__":
    main()
