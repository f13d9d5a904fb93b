"""In which bits each weight of an mlx-lm model is written, and what quantizes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_ssd.errors import BadInput
from mlx_ssd.export import fused

GROUP_SIZE = 64  # mlx-lm's own, where the base has none

Bits = dict[str, Any]  # bits, group_size and mode of a quantized weight
Triple = tuple[mx.array, mx.array, mx.array | None]  # weight as integers, scales, biases: of affine quantization alone
# quantizer(weight float32 [out, in] or of experts [experts, out, in], bits, group_size, mode, base, dtype) -> Triple.
# `base` is the untrained weight in the same bits, where it has them; scales and biases get `dtype`.
Quantizer = Callable[..., Triple]


def plain(weight: mx.array, bits: int, group_size: int, mode: str, base: Triple | None, dtype: mx.Dtype) -> Triple:
    """MLX's own, of the weight in `dtype`: in float32 its scales would be rounded after the integers were chosen."""
    found = mx.quantize(weight.astype(dtype), group_size=group_size, bits=bits, mode=mode)
    return found[0], found[1], found[2] if len(found) > 2 else None


QUANTIZERS: dict[str, Quantizer] = {"plain": plain}


def quantizer_of(bits: Bits) -> str:
    return "plain"


def quantized(weight: mx.array, bits: Bits | None, base: Triple | None, dtype: mx.Dtype) -> dict[str, mx.array]:
    """A module's arrays for a float32 weight: weight, scales and biases, or the weight alone where it has no bits."""
    if bits is None:
        return {"weight": weight.astype(dtype)}
    found = QUANTIZERS[quantizer_of(bits)](weight, **bits, base=base, dtype=dtype)
    names = zip(("weight", "scales", "biases"), found, strict=True)
    return {name: array for name, array in names if array is not None}


def layout(model: nn.Module, precision: str) -> dict[str, Bits | None]:
    """The bits of each module that can be quantized, by path; None where it is not to be.

    `precision` is "base" or "fitted" for its own, "bfloat16", or "8bit", "4bit": then in the base's groups, and what
    the base does not quantize stays as it is; of a base without any, whatever mlx-lm would quantize. Raises BadInput
    where that is nothing.
    """
    found = {path: fused.inner(module) for path, module in fused.modules(model).items()}
    found = {path: module for path, module in found.items() if hasattr(module, "to_quantized") or bits_of(module)}
    own = {path: bits_of(module) for path, module in found.items()}
    if precision in ("base", "fitted"):
        return own
    if precision == "bfloat16":
        return dict.fromkeys(own)
    wanted = {"bits": int(precision.removesuffix("bit")), "group_size": GROUP_SIZE, "mode": "affine"}
    if any(own.values()):
        return {path: bits and wanted | _groups(bits) for path, bits in own.items()}
    allowed = getattr(model, "quant_predicate", None) or (lambda path, module: True)
    answers = {p: module.weight.shape[-1] % GROUP_SIZE == 0 and allowed(p, module) for p, module in found.items()}
    chosen = {path: _answered(answer, wanted) for path, answer in answers.items()}
    if not any(chosen.values()):
        raise BadInput(f"--precision {precision}: no weight of this model has groups of {GROUP_SIZE}; take bfloat16")
    return chosen


def _groups(bits: Bits) -> Bits:
    return {"group_size": bits["group_size"]} if bits["mode"] == "affine" else {}


def _answered(answer: bool | Bits, wanted: Bits) -> Bits | None:
    """A model of mlx-lm answers for a module whether it may be quantized, or with bits of its own."""
    if isinstance(answer, dict):
        return wanted | answer
    return wanted if answer else None


def bits_of(module: nn.Module) -> Bits | None:
    if not hasattr(module, "bits"):
        return None
    return {"bits": module.bits, "group_size": module.group_size, "mode": module.mode}


def stored(module: nn.Module, bits: Bits | None) -> tuple[Triple | None, mx.Dtype]:
    """(a base's weight, where it is in these bits; the type of what is written in its place)."""
    base = (module.weight, module.scales, module.get("biases")) if bits and bits_of(module) == bits else None
    dtype = (module.scales if bits_of(module) else module.weight).dtype
    # Of float formats the scales are exponents.
    return base, dtype if mx.issubdtype(dtype, mx.floating) else mx.bfloat16


def config_of(chosen: dict[str, Bits | None]) -> dict[str, Any]:
    """`quantization` of config.json: the most frequent bits, and by its path each module with others."""
    given = [bits for bits in chosen.values() if bits]
    usual = max(given, key=given.count)
    return usual | {path: bits for path, bits in chosen.items() if bits and bits != usual}
