"""What the numbers of a GGUF file stand for, from the definition of its types (ggml-quants.c): a second way to them.

In blocks of 32 along a row, each with its own scale d, in float16 as it is stored, and of the second kind a least
value m:

    Q8_0        d = max |x| / 127                       x ~ d q,            q in -127 ... 127
    Q4_0, Q5_0  d = x_far / -2^(bits - 1)               x ~ d (q - 2^(bits - 1))
    Q4_1, Q5_1  d = (max x - min x) / (2^bits - 1)      x ~ d q + m

with x_far the value farthest from 0, and q an integer of so many bits.
"""

from __future__ import annotations

import numpy as np

BLOCK = 32


def rounded(values: np.ndarray, kind: str) -> np.ndarray:
    """float32 of the same shape; kind: F32, F16, Q8_0, Q4_0, Q4_1, Q5_0 or Q5_1. Rows are multiples of 32 long."""
    if kind == "F32":
        return values
    if kind == "F16":
        return values.astype(np.float16).astype(np.float32)
    blocks = values.astype(np.float32).reshape(-1, BLOCK)
    bits, form = int(kind[1]), kind[2:]
    of = _to_nearest if bits == 8 else _about_zero if form == "_0" else _from_least
    return of(blocks, bits).reshape(values.shape)


def _to_nearest(x: np.ndarray, bits: int) -> np.ndarray:
    scale = np.abs(x).max(-1, keepdims=True) / np.float32(127)
    steps = x * _inverse(scale)
    return np.copysign(np.floor(np.abs(steps) + np.float32(0.5)), steps) * _stored(scale)


def _about_zero(x: np.ndarray, bits: int) -> np.ndarray:
    half = 2 ** (bits - 1)
    farthest = np.take_along_axis(x, np.abs(x).argmax(-1)[:, None], -1)
    scale = farthest / np.float32(-half)
    steps = np.floor(x * _inverse(scale) + np.float32(half + 0.5))
    return (np.minimum(steps, 2 * half - 1) - half) * _stored(scale)


def _from_least(x: np.ndarray, bits: int) -> np.ndarray:
    most, least = 2**bits - 1, x.min(-1, keepdims=True)
    scale = (x.max(-1, keepdims=True) - least) / np.float32(most)
    steps = np.floor((x - least) * _inverse(scale) + np.float32(0.5))
    return np.minimum(steps, most) * _stored(scale) + _stored(least)


def _inverse(scale: np.ndarray) -> np.ndarray:
    return np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)


def _stored(scale: np.ndarray) -> np.ndarray:
    return scale.astype(np.float16).astype(np.float32)
