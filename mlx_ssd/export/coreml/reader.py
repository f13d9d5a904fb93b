"""A Core ML package's logits, by the interpreter, and those that it should have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.export import Tolerance
from mlx_ssd.export.compare import compare
from mlx_ssd.export.coreml.contract import ADAPTERS, IDS, LOGITS, MASK, context_of, function_of, weight_name
from mlx_ssd.export.coreml.interpreter import Interpreter
from mlx_ssd.export.coreml.rounding import rounded, with_branches
from mlx_ssd.export.reference import BASE, reference_of
from mlx_ssd.export.source import Source
from mlx_ssd.export.survival import survival
from mlx_ssd.export.texts import Text
from mlx_ssd.export.torch_reader import TorchReader
from mlx_ssd.torch_ref import model as torch_model
from mlx_ssd.torch_ref.qwen3 import causal_mask
from mlx_ssd.torch_ref.qwen3_config import Qwen3Config
from mlx_ssd.weights import AdaptedWeights

BASE_TEXTS = 2  # that the base's function is compared on


class CoreMLReader:
    """A function of a package, called as an app would: the prompt at once, the completion token by token."""

    def __init__(self, model: Interpreter, context: int):
        self.model, self.context = model, context

    def logits(self, text: Text) -> np.ndarray:
        ids = [*text.prompt_ids, *text.completion_ids[:-1]]
        if len(ids) > self.context:
            raise BadInput(f"a text of {len(ids)} tokens is longer than the package's context of {self.context}")
        self.model.reset()
        found, end = [], 0
        for count in (len(text.prompt_ids), *[1] * (len(text.completion_ids) - 1)):
            end += count
            inputs = {IDS: torch.tensor([ids[end - count : end]], dtype=torch.int32), MASK: causal_mask(count, end)}
            found.append(self.model(inputs)[LOGITS][0, -1].float())
        return torch.stack(found).numpy()


def load(source: Source, package: Path, precision: str, tolerance: Tolerance) -> CoreMLReader:
    """The student in a package. Of one with functions, `base` must be the base: raises WorkFailed where it is not."""
    context = context_of(Qwen3Config.of(source.config))
    if precision != ADAPTERS:
        return CoreMLReader(Interpreter(package), context)
    texts = reference_of(source).texts[:BASE_TEXTS]
    found = [CoreMLReader(Interpreter(package, BASE), context).logits(text) for text in texts]
    weights = AdaptedWeights(source.base.path, source.adapter)
    base = reader_of(weights, lambda name: rounded(weights.read_base(name), ADAPTERS))
    measured = compare(texts, found, [base.logits(text) for text in texts])
    if measured["max_abs"] > tolerance.allowed(measured):
        raise WorkFailed(
            f"{package}: the logits of its function {BASE} are up to {measured['max_abs']:.3g} off the base's; "
            f"{tolerance.allowed(measured):.3g} are allowed"
        )
    return CoreMLReader(Interpreter(package, function_of(source.files.arm)), context)


def rounded_student(source: Source, precision: str) -> TorchReader:
    """Transformers' model, in float32, of the weights that `precision` leaves."""
    weights = AdaptedWeights(source.base.path, source.adapter)
    if precision == ADAPTERS:
        return reader_of(weights, lambda name: with_branches(weights, name))
    return reader_of(weights, lambda name: rounded(weights.read(name), precision))


def survival_of(source: Source, package: Path) -> list[dict[str, Any]]:
    """What is left of the update in a package of one student."""
    model = Interpreter(package)
    weights = AdaptedWeights(source.base.path, source.adapter)
    return survival(weights, lambda name: model.weight(weight_name(name)))


def reader_of(weights: AdaptedWeights, read: Callable[[str], np.ndarray]) -> TorchReader:
    """Transformers' model of what `read` makes of the weights, in float32."""
    return TorchReader(torch_model.build(weights.folder, weights.names, read))
