"""Affine quantization as MLX stores it: of each group of a row, weight = scale * integer + bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np


@dataclass(frozen=True)
class Grid:
    """A quantized weight [out, in] taken apart; `dtype` is the type that scales and biases are stored in."""

    integers: np.ndarray  # uint8 [out, in], 0 to 2**bits - 1
    scales: np.ndarray  # float32 [out, in / group_size], exact in `dtype`
    biases: np.ndarray  # the same
    bits: int
    group_size: int
    dtype: mx.Dtype

    @classmethod
    def of(cls, module: Any, dtype: mx.Dtype) -> Grid:
        """Of an nn.QuantizedLinear of mode affine."""
        scales, biases = (np.array(array.astype(mx.float32)) for array in (module.scales, module.biases))
        return cls(unpack(module.weight, module.bits), scales, biases, module.bits, module.group_size, dtype)

    @property
    def highest(self) -> int:
        return 2**self.bits - 1

    def weight(self, integers: np.ndarray | None = None) -> np.ndarray:
        """float32 [out, in] that the integers, or others, stand for."""
        integers = self.integers if integers is None else integers
        grouped = integers.reshape(len(integers), -1, self.group_size).astype(np.float32)
        return (grouped * self.scales[..., None] + self.biases[..., None]).reshape(integers.shape)

    def arrays(self) -> dict[str, mx.array]:
        """weight, scales and biases, as a model's file has them."""
        scales, biases = (mx.array(array).astype(self.dtype) for array in (self.scales, self.biases))
        return {"weight": pack(self.integers, self.bits), "scales": scales, "biases": biases}


def unpack(packed: mx.array, bits: int) -> np.ndarray:
    """uint32 [out, in * bits / 32] -> uint8 [out, in]."""
    count = packed.shape[-1] * 32 // bits
    ones = mx.ones((packed.shape[0], count // 32))
    return np.array(mx.dequantize(packed, ones, mx.zeros_like(ones), group_size=32, bits=bits)).astype(np.uint8)


def pack(integers: np.ndarray, bits: int) -> mx.array:
    """uint8 [out, in] -> uint32 [out, in * bits / 32]: a row is one stream of bits, the lowest of a number first."""
    stream = np.unpackbits(integers[..., None], axis=-1, count=bits, bitorder="little")
    packed = np.packbits(stream.reshape(len(integers), -1), axis=-1, bitorder="little")
    return mx.array(packed.view("<u4"))
