"""Readers through PyTorch, for what is not read by MLX."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlx_ssd.export.source import Source
from mlx_ssd.export.texts import Text
from mlx_ssd.torch_ref import model as torch_model
from mlx_ssd.weights import AdaptedWeights


class TorchReader:
    """A causal language model of Transformers."""

    engine = "torch"

    def __init__(self, model: Any):
        self.model = model

    def logits(self, text: Text) -> np.ndarray:
        return torch_model.logits(self.model, text.prompt_ids, text.completion_ids)


def student(source: Source, dtype: str = "float32") -> TorchReader:
    """The student, its update added to the base's weights."""
    weights = AdaptedWeights(source.base.path, source.adapter)
    return TorchReader(torch_model.build(source.base.path, weights.names, weights.read, dtype))
