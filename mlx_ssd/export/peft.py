"""A PEFT adapter folder of Hugging Face, for Transformers and servers: to be loaded beside the original base."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.export import Reader, Tolerance
from mlx_ssd.export.names import is_mixture, layer_of
from mlx_ssd.models import is_hub_name

if TYPE_CHECKING:
    from mlx_ssd.export.source import Source
    from mlx_ssd.weights import AdaptedWeights

EXTRA = "parity"
PACKAGES = ("torch", "peft")
PRECISIONS = ("float32",)
CHECKED_BY = "peft on Transformers, in float32"
TOLERANCES = {"float32": Tolerance(1e-3, 1e-6, 1.0, "the same weights; PyTorch adds in another order than MLX")}
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
FILES = (WEIGHTS, CONFIG)


def refuse(config: dict[str, Any], adapter_config: dict[str, Any]) -> str | None:
    if adapter_config["fine_tune_type"] != "lora":
        return "the student was trained in full and has no adapter; --target hf writes the whole model"
    if is_mixture(config):
        return "the model has experts, which mlx-lm stacks and Transformers does not; --target adapter takes it"
    return None


def check_memory(source: Source) -> None:
    from mlx_ssd.export.memory import refuse_whole

    refuse_whole(source, "adapter")


def write(source: Source, folder: Path, precision: str, report: Callable[[int, int], None]) -> None:
    import mlx.core as mx

    from mlx_ssd.training.arrays import write_arrays
    from mlx_ssd.weights import AdaptedWeights

    weights = AdaptedWeights(source.base.path, source.adapter)
    arrays: dict[str, mx.array] = {}
    for module in weights.adapted:
        a, b, _ = weights.factors(module)
        out, inside = weights.shape(f"{module}.weight")
        if (a.shape[0], b.shape[1]) != (inside, out):
            raise BadInput(f"--target peft: {module} is an embedding, whose adapters PEFT keeps otherwise; take hf")
        arrays[f"base_model.model.{module}.lora_A.weight"] = mx.array(a.T)
        arrays[f"base_model.model.{module}.lora_B.weight"] = mx.array(b.T)
    write_arrays(folder / WEIGHTS, arrays, {"format": "pt"})
    config = config_of(source, weights)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def config_of(source: Source, weights: AdaptedWeights) -> dict[str, Any]:
    """adapter_config.json: y += lora_alpha / r * B A x, which is our scale * x A B."""
    a, _, scale = weights.factors(weights.adapted[0])
    rank = a.shape[1]
    of_hub = is_hub_name(source.recipe.model.path)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": source.recipe.model.path if of_hub else str(source.base.path),
        "revision": source.recipe.model.revision if of_hub else None,
        "r": rank,
        "lora_alpha": _whole(scale * rank),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "modules_to_save": None,
    } | _targets(weights.adapted, [name.removesuffix(".weight") for name in weights.names])


def _targets(adapted: Sequence[str], modules: Sequence[str]) -> dict[str, Any]:
    """The modules by the last part of their names, as everybody writes them, in all layers or in some; by their whole
    names where that would take in others."""
    last = sorted({module.rpartition(".")[2] for module in adapted})
    alike = [module for module in modules if module.rpartition(".")[2] in last]
    layers = sorted({found[0] for module in adapted if (found := layer_of(module))})
    within = [module for module in alike if (found := layer_of(module)) and found[0] in layers]
    if sorted(alike) == sorted(adapted):
        return {"target_modules": last, "layers_to_transform": None}
    if sorted(within) == sorted(adapted):
        return {"target_modules": last, "layers_to_transform": layers, "layers_pattern": "layers"}
    return {"target_modules": sorted(adapted), "layers_to_transform": None}


def _whole(number: float) -> int | float:
    """Some readers know no alpha with a fraction."""
    return int(number) if number == int(number) else number


def load(source: Source, folder: Path, precision: str) -> Reader:
    """The base is built from its own tensors, quantized ones dequantized."""
    from peft import PeftModel

    from mlx_ssd.export.torch_reader import TorchReader
    from mlx_ssd.torch_ref import model as torch_model
    from mlx_ssd.weights import WeightFiles

    weights = WeightFiles(source.base.path)
    base = torch_model.build(source.base.path, weights.names, weights.read)
    try:
        model = PeftModel.from_pretrained(base, str(folder), local_files_only=True)
    except Exception as error:  # whatever the loader meets in a damaged folder
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WorkFailed(f"peft cannot load {folder}: {reason}") from error
    return TorchReader(model.eval())


def rounded(source: Source, precision: str) -> Reader:
    """The student in mlx-lm, in the same float32."""
    from mlx_ssd import models
    from mlx_ssd.export.reference import MlxReader

    return MlxReader(models.load(source.base, "float32", source.adapter)[0])


def survival(source: Source, folder: Path, precision: str) -> None:
    return None
