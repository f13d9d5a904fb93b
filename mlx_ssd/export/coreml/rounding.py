"""What a package's precision leaves of a weight, computed without coremltools: the measure of its conversion."""

from __future__ import annotations

import numpy as np

from mlx_ssd.export.coreml.contract import BLOCK
from mlx_ssd.weights import AdaptedWeights

LIMITS = {"int8": 127, "int4": 7}


def rounded(weight: np.ndarray, precision: str) -> np.ndarray:
    """A float32 weight as `precision` stores it, in float32 again.

    Vectors are stored in float16, and so are matrices unless in int8 or int4. Those are integers within +-127 or +-7
    times a float16 scale, a row's or a block's largest absolute value over that limit; all in float16, as it is done.
    """
    half = weight.astype(np.float16)
    if precision not in LIMITS or weight.ndim < 2:
        return half.astype(np.float32)
    limit, shape = np.float16(LIMITS[precision]), half.shape
    if precision == "int4":
        half = half.reshape(shape[0], -1, BLOCK)
    scale = np.abs(half).max(-1, keepdims=True) / limit
    integers = np.rint(np.divide(half, scale, out=np.zeros_like(half), where=scale > 0))
    return (np.clip(integers, -limit, limit) * scale).astype(np.float32).reshape(shape)


def with_branches(weights: AdaptedWeights, name: str) -> np.ndarray:
    """A weight whose base and whose adapter's factors are each rounded to float16, as functions hold them."""
    base, module = rounded(weights.read_base(name), "float16"), name.removesuffix(".weight")
    if module not in weights.adapted:
        return base
    a, b, scale = weights.factors(module)
    return base + (rounded(a, "float16") @ rounded(scale * b, "float16")).T
