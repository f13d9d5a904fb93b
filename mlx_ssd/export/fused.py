"""The student as one model of mlx-lm, its adapter fused by mlx-lm itself."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map, tree_unflatten
from mlx_lm.utils import dequantize_model

from mlx_ssd import models
from mlx_ssd.errors import BadInput
from mlx_ssd.export.source import Source


def lazily(source: Source, adapter: bool = True) -> nn.Module:
    """The student as stored, or its base alone; a tensor is read when it is evaluated."""
    import mlx_lm

    try:
        return mlx_lm.load(str(source.base.path), adapter_path=str(source.adapter) if adapter else None, lazy=True)[0]
    except Exception as error:  # whatever the loader meets in a damaged folder
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(f"cannot load {source.base.path} with adapter {source.adapter}: {reason}") from error


def whole_student(source: Source) -> nn.Module:
    """The student in float32: nothing quantized, no adapter."""
    model = models.load(source.base, "float32", source.adapter)[0]
    if fused := [(path, fuse(module)) for path, module in modules(model).items() if wears(module)]:
        model.update_modules(tree_unflatten(fused))
    model = dequantize_model(model)
    model.set_dtype(mx.float32)
    return model


def modules(model: nn.Module) -> dict[str, nn.Module]:
    """All modules by path, but for those within one that wears an adapter."""
    found = dict(model.named_modules())
    return {path: module for path, module in found.items() if not wears(found.get(path.rpartition(".")[0], {}))}


def wears(module: nn.Module) -> bool:
    return "lora_a" in module


def inner(module: nn.Module) -> nn.Module:
    """The module that wears an adapter, without it; any other is itself."""
    return module[_within(module)] if wears(module) else module


def _within(module: nn.Module) -> str:
    return "embedding" if "embedding" in module else "linear"


def own_arrays(module: nn.Module) -> dict[str, mx.array]:
    """A module's arrays without those of the modules in it."""
    return {name: value for name, value in module.items() if isinstance(value, mx.array) and not name.startswith("_")}


def fuse(module: nn.Module) -> nn.Module:
    """A module with its update in its weight, in float32: in 16 bits a small update would be rounded away."""
    plain = inner(module)
    plain.update(tree_map(float32, plain.parameters()))
    plain = dequantize_model(nn.Sequential(plain)).layers[0]
    plain.update(tree_map(float32, plain.parameters()))  # some formats stand for numbers in bfloat16
    if not wears(module):
        return plain
    setattr(module, _within(module), plain)
    return module.fuse()


def float32(array: mx.array) -> mx.array:
    return array.astype(mx.float32) if mx.issubdtype(array.dtype, mx.floating) else array
