"""What all trainers are given: the model, and rows of natural prompts with completions of the given lengths."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models import qwen3

from benchmarks.sampling.workload import SEED, Subject, lengths
from benchmarks.stand_ins.qwen3 import REAL_CONFIG
from mlx_ssd.records import TrainingRow

FOUR_LAYERS = "qwen3-0.6b-4-layers"
# Qwen3-0.6B's own config.json where it differs from the 4B's, but for the number of layers (28).
FOUR_LAYERS_CONFIG: dict[str, Any] = {name: value for name, value in REAL_CONFIG.items() if "quant" not in name} | {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_hidden_layers": 4,
    "max_position_embeddings": 40960,
    "rope_theta": 1000000,
    "torch_dtype": "float32",
}


def subject(model: str, dtype: str, prompts: int) -> Subject:
    """A model by its path, or FOUR_LAYERS: random weights, on the prompts of the embedded model (whose tokenizer gives
    about as many tokens as SmolLM2's: 63 and 67 in the median).

    Raises BadInput for a model that is not there or cannot be read.
    """
    if model != FOUR_LAYERS:
        return Subject.load(model, dtype, prompts)
    embedded = Subject.load("embedded", dtype, prompts)
    mx.random.seed(SEED)
    layers = qwen3.Model(qwen3.ModelArgs.from_dict(FOUR_LAYERS_CONFIG))
    mx.eval(layers.parameters())
    return Subject(FOUR_LAYERS, layers, embedded.prompts, FOUR_LAYERS_CONFIG)


def training_rows(subject: Subject, count: int, order: int) -> list[TrainingRow]:
    """Rows whose completions are random ids: what is computed does not depend on them.

    Their lengths stand at equal distances in the order of 1,024 of `lengths`, so that few rows have the mean and the
    spread of many; which row is how long depends on `order`.
    """
    many = np.sort(lengths(1024))
    chosen = many[((np.arange(count) + 0.5) * len(many) / count).astype(int)]
    generator = np.random.default_rng([SEED, order])
    return [
        TrainingRow(
            problem_id=str(i),
            sample_index=0,
            prompt_ids=subject.prompts[i % len(subject.prompts)],
            completion_ids=generator.integers(0, subject.size.vocabulary, tokens).tolist(),
        )
        for i, tokens in enumerate(generator.permutation(chosen))
    ]
