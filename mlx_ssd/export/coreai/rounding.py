"""The student's weights as a precision leaves them, by nothing but NumPy: what a converted file is measured against."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mlx_ssd.export.coreai.noise import without_noise
from mlx_ssd.export.source import Source
from mlx_ssd.export.torch_reader import TorchReader
from mlx_ssd.torch_ref import model as torch_model
from mlx_ssd.weights import AdaptedWeights, WeightFiles

BLOCK, LARGEST = 32, 7  # int4: integers in -7 ... 7 and one float16 scale for 32 weights of a row


def half(array: np.ndarray) -> np.ndarray:
    """Rounded to float16, in float32."""
    return array.astype(np.float16).astype(np.float32)


def int4(array: np.ndarray) -> np.ndarray:
    """A matrix [rows, columns] in symmetric 4 bits, in float32; all arithmetic of weights and scales is in float16."""
    blocks = half(array).reshape(len(array), -1, BLOCK)
    scales = half(np.maximum(half(np.abs(blocks).max(-1, keepdims=True) / LARGEST), np.finfo(np.float32).eps))
    integers = np.clip(np.round(blocks / scales), -LARGEST, LARGEST)
    return half(integers * scales).reshape(array.shape)


def weights(source: Source, precision: str) -> tuple[AdaptedWeights, Callable[[str], np.ndarray]]:
    """(the student's weights, read): `read` gives one of them as it is after rounding, under its Hugging Face name."""
    student = AdaptedWeights(source.base.path, source.adapter)

    def read(name: str) -> np.ndarray:
        if precision == "adapters":
            return half(student.read_base(name)) + branch(student, name.removesuffix(".weight"))
        array = student.read(name)
        if precision == "float32":
            return array
        return int4(array) if precision == "int4" and array.ndim == 2 else half(array)

    return student, read


def branch(student: AdaptedWeights, module: str) -> np.ndarray | float:
    """What a module's unfused update adds to its weight, its factors rounded to float16."""
    if module not in student.adapted:
        return 0.0
    a, b, scale = student.factors(module)
    return (half(a) @ half(scale * b)).T


def reader(source: Source, precision: str) -> TorchReader:
    """Transformers' model of those weights, in float32 arithmetic."""
    student, read = weights(source, precision)
    return _reader(source, student.names, read)


def base_reader(source: Source) -> TorchReader:
    """The same of the base without the student's update, in float16 weights."""
    base = WeightFiles(source.base.path)
    return _reader(source, base.names, lambda name: half(base.read(name)))


def _reader(source: Source, names: Sequence[str], read: Callable[[str], np.ndarray]) -> TorchReader:
    with without_noise():  # Transformers loads torchao too
        return TorchReader(torch_model.build(source.base.path, names, read))
