"""What a training step holds in memory: the coefficients of mlx_ssd/budget/training.py, and how well they predict.

    python -m benchmarks.training_memory

Small Qwen3 models whose rows are long beside their widths, as on a Mac. What is kept is the difference of two depths,
what comes and goes is what is above it; one width is larger at a time. The base is not quantized: that changes the
weights alone, and on a CPU takes ten times as long. About five minutes on two Linux cores; the peak is MLX's own
count.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models import qwen3

from mlx_ssd.budget.model_size import ModelSize
from mlx_ssd.budget.training import BLOCK, FULL, LORA, Coefficients, step_bytes, trained_parameters
from mlx_ssd.sections import Training
from mlx_ssd.training import full, lora
from mlx_ssd.training.batches import pack_rows
from mlx_ssd.training.forward import output_head
from mlx_ssd.training.loss import step_gradient
from mlx_ssd.training.recompute import recomputed_layers
from mlx_ssd.training.rows import TokenRow

HEAD = 32  # the size of one
PROMPT = 8  # tokens; the rest of a sample is its completion
RANK = 2
SHORT, MEDIUM, LONG = [64] * 8, [256] * 2, [1024]  # samples of a row; the last is attended to in blocks
DEEP = 12  # layers: of few, MLX has not as many in hand at once


@dataclass(frozen=True)
class Shape:
    hidden: int = 64
    mlp: int = 128
    query: int = 128
    key_value: int = 64
    layers: int = 6
    vocabulary: int = 64

    @property
    def config(self) -> dict[str, Any]:
        return {
            "model_type": "qwen3",
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "intermediate_size": self.mlp,
            "num_attention_heads": self.query // HEAD,
            "num_key_value_heads": self.key_value // HEAD,
            "head_dim": HEAD,
            "rms_norm_eps": 1e-6,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 4096,
            "rope_theta": 1e6,
            "tie_word_embeddings": True,
        }


KINDS: dict[str, tuple[Any, mx.Dtype, Coefficients]] = {
    "bfloat16": (lora, mx.bfloat16, LORA["bfloat16"]),
    "float16": (lora, mx.float16, LORA["float16"]),
    "float32": (lora, mx.float32, LORA["float32"]),
    "full": (full, mx.bfloat16, FULL),
}
FITTED = (Shape(), Shape(hidden=192), Shape(mlp=384), Shape(query=384), Shape(key_value=128))


def step_peak(
    kind: str,
    shape: Shape,
    samples: Sequence[int],
    recompute: bool = False,
    num_layers: int = -1,
    plain_head: bool = True,
) -> int:
    """Bytes that one step of one row of `samples` (their lengths) takes above the model."""
    method, dtype, _ = KINDS[kind]
    mx.random.seed(0)
    model = qwen3.Model(qwen3.ModelArgs(**shape.config))
    model.set_dtype(dtype)
    settings = {"keys": "all", "experts": False, "num_layers": num_layers, "rank": RANK, "scale": 2.0, "dropout": 0.0}
    method.attach(model, SimpleNamespace(**settings, seed=0))
    mx.eval(model.parameters())
    model.train()
    rows = [TokenRow("", i, [1] * PROMPT, [1] * (length + 1 - PROMPT)) for i, length in enumerate(samples)]
    head = output_head(model) if plain_head else None
    gc.collect()  # models of before, whose modules refer to each other
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    with recomputed_layers(model, recompute):
        step_gradient(model, head, [pack_rows(rows)])
    return mx.get_peak_memory() - before


def training(kind: str, num_layers: int = -1) -> Training:
    return Training(method="full" if kind == "full" else "lora", rank=RANK, num_layers=num_layers)


def computed_in(kind: str) -> str:
    return str(KINDS[kind][1]).rpartition(".")[2]


def layer_bytes(kind: str, recompute: bool) -> np.ndarray:
    """The four numbers of LayerBytes: what a layer keeps, or where it is recomputed what comes and goes; then, behind
    them, what a block does."""
    _, _, coefficients = KINDS[kind]
    rows, found = [], []
    for shape in FITTED:
        for samples in (SHORT, MEDIUM, LONG):
            tokens, heads = sum(samples), shape.query // HEAD
            squares = sum(length**2 for length in samples if length <= BLOCK)
            blocks = max((length * BLOCK for length in samples if length > BLOCK), default=0)
            rows.append([tokens * shape.hidden, tokens * shape.mlp, tokens * (shape.query + shape.key_value)])
            rows[-1] += [squares * heads, blocks * heads]
            if recompute:
                deep = replace(shape, layers=DEEP)
                inputs = DEEP * tokens * coefficients.input * shape.hidden
                gradient = 4 * trained_parameters(ModelSize.of(deep.config), training(kind))
                found.append(step_peak(kind, deep, samples, True) - max(inputs, gradient))
            else:
                shallow = step_peak(kind, replace(shape, layers=2), samples)
                found.append((step_peak(kind, shape, samples) - shallow) / (shape.layers - 2))
    weight = 1 / np.array(found)  # every shape counts alike
    return np.linalg.lstsq(np.array(rows) * weight[:, None], np.array(found) * weight, rcond=None)[0]


def logit_bytes(kind: str, plain_head: bool) -> float:
    """Bytes a position and vocabulary entry: of a chunk, or without a plain head of a row that has several chunks."""
    samples, vocabularies = (SHORT, (2048, 6144)) if plain_head else (8 * [512], (8192, 16384))
    few, many = (
        step_peak(kind, Shape(hidden=32, layers=1, vocabulary=vocabulary), samples, plain_head=plain_head)
        for vocabulary in vocabularies
    )
    of_head = 8 * 32 if kind == "full" and plain_head else 0  # the gradient of the head itself
    return ((many - few) / (vocabularies[1] - vocabularies[0]) - of_head) / sum(samples)


CHECKED = (
    (Shape(96, 320, 192, 64, layers=10), [200, 150, 40], -1),
    (Shape(160, 256, 96, 32, layers=8), [100] * 3, -1),
    (Shape(64, 384, 192, 96, layers=12), [400], -1),
    (Shape(128, 128, 256, 64, layers=12), [256, 200], 5),
    (Shape(96, 256, 192, 96, layers=12), [1100], -1),
    (Shape(96, 256, 192, 96, layers=12), [700, 200, 100], -1),
)
LARGE = Shape(576, 1536, 576, 192, layers=30, vocabulary=49152)  # SmolLM2-135M's widths; in float32, for the CPU's sake


def main() -> None:
    for kind in KINDS:
        kept, working = layer_bytes(kind, False).round(1), layer_bytes(kind, True).round(1)
        logits, every = (logit_bytes(kind, plain_head) for plain_head in (True, False))
        print(f"{kind:8} hidden, mlp, heads, scores, block: kept {kept}, working {working}", flush=True)
        print(f"{kind:8} logits: of a chunk {logits:.1f}, of a row {every:.1f}", flush=True)
    for kind in KINDS:
        for shape, samples, num_layers in CHECKED:
            check(kind, shape, samples, num_layers)
    check("float32", LARGE, [256, 128], -1)


def check(kind: str, shape: Shape, samples: Sequence[int], num_layers: int) -> None:
    size, train = ModelSize.of(shape.config), training(kind, num_layers)
    for recompute in (False, True):
        measured = step_peak(kind, shape, samples, recompute, num_layers)
        predicted = step_bytes(size, train, sum(samples), max(samples), recompute, dtype=computed_in(kind))
        print(
            f"{kind:8} {shape.layers:2} layers, samples {samples}, recomputed {recompute}: "
            f"{predicted / 1e6:.1f} MB predicted, {measured / 1e6:.1f} measured, {predicted / measured:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
