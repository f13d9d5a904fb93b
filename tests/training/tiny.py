"""A random-weight Qwen3 of two layers, rows for it, and settings to train it with."""

import random
from dataclasses import dataclass, replace

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import qwen3, qwen3_moe

from mlx_ssd.training.lora import adapter_weights
from tests.architectures import COMMON, MOE

CONFIG = COMMON | {
    "model_type": "qwen3",
    "vocab_size": 96,
    "max_position_embeddings": 128,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True)
class Row:
    problem_id: str
    sample_index: int
    prompt_ids: list[int]
    completion_ids: list[int]


@dataclass(frozen=True)
class Held:
    """Settings of a validation."""

    percent: float = 30
    every_steps: int = 2
    patience: int | None = None


@dataclass(frozen=True)
class Settings:
    method: str = "lora"
    targets: str = "tokens"
    rank: int = 4
    scale: float = 2.0
    dropout: float = 0.0
    keys: str | list[str] = "all"
    experts: bool = True
    num_layers: int = -1
    seed: int = 3
    learning_rate: float = 1e-2
    warmup_fraction: float = 0.2
    final_fraction: float = 0.2
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float = 1.0
    epochs: int = 2
    steps: int | None = None
    rows_per_step: int = 4
    row_tokens: int = 40
    gradient_checkpointing: bool = False
    max_length: int = 64
    too_long: str = "error"
    validation: Held | None = None
    checkpoint_every_steps: int = 2

    def but(self, **changes) -> "Settings":
        return replace(self, **changes)


def tiny_model(*, tied: bool = True, bits: int | None = None, seed: int = 0) -> qwen3.Model:
    """Weights wide enough (N(0, 0.3)) that logits differ visibly from token to token."""
    mx.random.seed(seed)
    model = qwen3.Model(qwen3.ModelArgs.from_dict(CONFIG | {"tie_word_embeddings": tied}))
    model.apply(lambda array: array if array.ndim < 2 else 0.3 * mx.random.normal(array.shape))
    if bits:
        nn.quantize(model, group_size=32, bits=bits)
    mx.eval(model.parameters())
    return model


def tiny_moe() -> qwen3_moe.Model:
    """The same with eight experts, two a token, in each layer's place of the MLP."""
    mx.random.seed(0)
    model = qwen3_moe.Model(qwen3_moe.ModelArgs.from_dict(CONFIG | MOE | {"model_type": "qwen3_moe"}))
    model.apply(lambda array: array if array.ndim < 2 else 0.3 * mx.random.normal(array.shape))
    mx.eval(model.parameters())
    return model


def randomize_adapter(model: nn.Module, size: float = 0.2) -> None:
    """Give B values: with the zeros it starts from, adapter and base agree, and A has no gradient."""
    weights = adapter_weights(model)
    model.load_weights([(name, size * mx.random.normal(w.shape)) for name, w in weights.items()], strict=False)


def make_rows(count: int = 10, seed: int = 0, longest: int = 20) -> list[Row]:
    """Prompts of 1 to 12 tokens, completions of 1 to `longest`: lengths as uneven as they come."""
    draw = random.Random(seed)

    def ids(longest: int) -> list[int]:
        return [draw.randrange(1, CONFIG["vocab_size"]) for _ in range(draw.randint(1, longest))]

    return [Row(f"problem/{i // 2}", i % 2, ids(12), ids(longest)) for i in range(count)]
