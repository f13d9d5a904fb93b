"""One model of mlx-lm with the update in its weights, complete for mlx-swift-lm and LM Studio: in the base's own bits
or in others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_ssd.export import Reader, Tolerance
from mlx_ssd.export.model_folder import FILES as FILES
from mlx_ssd.export.model_folder import Shards, check_companions, copy_companions, of_dtype

if TYPE_CHECKING:
    import mlx.core as mx
    import mlx.nn as nn

    from mlx_ssd.export.bits import Bits
    from mlx_ssd.export.source import Source

EXTRA = None
PACKAGES = ()
PRECISIONS = ("base", "fitted", "8bit", "4bit", "bfloat16")  # fitted: the base's own bits, fitted to the student
CHECKED_BY = "mlx_lm.load, computed in float32"
TOLERANCES = dict.fromkeys(
    PRECISIONS, Tolerance(1e-3, 1e-6, 1.0, "the same bits; what their rounding costs is the compression")
)


def refuse(config: dict[str, Any], adapter_config: dict[str, Any]) -> str | None:
    return None


def write(source: Source, folder: Path, precision: str, report: Callable[[int, int], None]) -> None:
    """Module by module: in memory are a file of weights and one module in float32."""
    import mlx.core as mx
    from mlx_lm.utils import save_config

    from mlx_ssd.export import bits, fused
    from mlx_ssd.weights import AdaptedWeights

    AdaptedWeights(source.base.path, source.adapter)  # refuses now what could not be verified when it is written
    model = fused.lazily(source)
    chosen = bits.layout(model, precision)
    fit = _fitted(source, report) if precision == "fitted" else {}
    shards = Shards(folder, "mlx")
    modules = fused.modules(model)
    for done, (path, module) in enumerate(modules.items()):
        report(done, len(modules))
        for name, array in _final(module, chosen.get(path), precision, fit.get(path)).items():
            mx.eval(array)
            shards.add(f"{path}.{name}".lstrip("."), array)
        for part in (module, fused.inner(module)):
            part.update({name: mx.array(()) for name in fused.own_arrays(part)})  # it has been read: let it go
    shards.close()
    config = dict(source.config)
    if precision not in ("base", "fitted"):
        config = of_dtype(config, "bfloat16") if precision == "bfloat16" else config
        config = {key: value for key, value in config.items() if key not in ("quantization", "quantization_config")}
    if any(chosen.values()) and "quantization" not in config:  # the hub's quantization_config is of other files
        config = {key: value for key, value in config.items() if key != "quantization_config"}
        config |= {"quantization": bits.config_of(chosen)}
    save_config(config, folder / "config.json")
    copy_companions(source.base.path, folder)


def _fitted(source: Source, report: Callable[[int, int], None]) -> dict[str, dict[str, mx.array]]:
    from mlx_ssd.export.quantizer.fitted import fitted

    return fitted(source, report)


def _final(
    module: nn.Module, bits: Bits | None, precision: str, fit: dict[str, mx.array] | None
) -> dict[str, mx.array]:
    """A module's own arrays as they are written."""
    from mlx_ssd.export import fused
    from mlx_ssd.export.bits import bits_of, quantized, stored

    plain = fused.inner(module)
    arrays = fused.own_arrays(plain)
    if fit:
        return arrays | fit
    if fused.wears(module) or bits_of(plain) != bits:
        base, dtype = stored(plain, bits)
        rest = {name: array for name, array in arrays.items() if name not in ("weight", "scales", "biases")}
        arrays = rest | quantized(fused.fuse(module).weight, bits, base, dtype)
    return {name: _bfloat16(array) for name, array in arrays.items()} if precision == "bfloat16" else arrays


def _bfloat16(array: mx.array) -> mx.array:
    import mlx.core as mx

    return array.astype(mx.bfloat16) if mx.issubdtype(array.dtype, mx.floating) else array


def load(source: Source, folder: Path, precision: str) -> Reader:
    from mlx_ssd import models
    from mlx_ssd.export.reference import MlxReader

    check_companions(source.base.path, folder)
    return MlxReader(models.load(models.ModelSource(folder, ""), "float32")[0])


def rounded(source: Source, precision: str) -> Reader:
    """The base in mlx-lm, what training changed as `AdaptedWeights` has it, rounded in memory."""
    import mlx.core as mx
    from mlx.utils import tree_map, tree_unflatten

    from mlx_ssd.export import fused
    from mlx_ssd.export.bits import bits_of, layout
    from mlx_ssd.export.reference import MlxReader
    from mlx_ssd.weights import AdaptedWeights

    if precision == "fitted":
        return _fitted_reader(source)
    student, model = AdaptedWeights(source.base.path, source.adapter), fused.lazily(source, adapter=False)
    chosen, modules = layout(model, precision), fused.modules(model)
    for path, bits in chosen.items():
        trained = student.read(f"{path}.weight") if f"{path}.weight" in student.changed else None
        if trained is not None or bits_of(modules[path]) != bits:
            new = _rounded(modules[path], bits, None if trained is None else mx.array(trained))
            model.update_modules(tree_unflatten([(path, new)]))
    others = [name for name in student.changed if name.removesuffix(".weight") not in chosen]
    model.load_weights([(name, mx.array(student.read(name))) for name in others], strict=False)
    if precision == "bfloat16":
        model.update(tree_map(_bfloat16, model.parameters()))
    model.set_dtype(mx.float32)
    mx.eval(model.parameters())
    return MlxReader(model)


def _fitted_reader(source: Source) -> Reader:
    """The base with the fitted weights in float32, taken out of their integers without MLX's kernels."""
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_unflatten

    from mlx_ssd.export import fused
    from mlx_ssd.export.quantizer.grid import Grid
    from mlx_ssd.export.reference import MlxReader

    model = fused.lazily(source, adapter=False)
    modules = fused.modules(model)
    for path, arrays in _fitted(source, lambda done, total: None).items():
        module = modules[path]
        module.update(arrays)
        plain = nn.Linear(1, 1, bias="bias" in module)
        plain.weight = mx.array(Grid.of(module, module.scales.dtype).weight())
        if "bias" in module:
            plain.bias = module.bias
        model.update_modules(tree_unflatten([(path, plain)]))
    model.set_dtype(mx.float32)
    return MlxReader(model)


def _rounded(module: nn.Module, bits: Bits | None, trained: mx.array | None) -> nn.Module:
    import mlx.core as mx

    from mlx_ssd.export import fused
    from mlx_ssd.export.bits import quantized, stored

    base, dtype = stored(module, bits)
    whole = fused.fuse(module)
    new = whole.to_quantized(**bits) if bits else whole
    new.update(quantized(whole.weight if trained is None else trained, bits, base, dtype))
    mx.eval(new.parameters())
    return new


def survival(source: Source, folder: Path, precision: str) -> Sequence[dict[str, Any]]:
    from mlx_ssd.export.survival import survival
    from mlx_ssd.weights import AdaptedWeights, WeightFiles

    return survival(AdaptedWeights(source.base.path, source.adapter), WeightFiles(folder).read)
