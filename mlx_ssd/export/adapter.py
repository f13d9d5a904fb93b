"""mlx-lm's adapter folder, as mlx-swift-lm reads it too: to be loaded beside its base, nothing converted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_ssd.export import Tolerance
from mlx_ssd.export.names import layer_of

if TYPE_CHECKING:
    from mlx_ssd.export.reference import MlxReader
    from mlx_ssd.export.source import Source

EXTRA = None
PACKAGES = ()
PRECISIONS = ("float32",)
CHECKED_BY = "mlx_lm.load"
TOLERANCES = {"float32": Tolerance(1e-3, 1e-6, 1.0, "the same weights in the same library")}
WEIGHTS, CONFIG = "adapters.safetensors", "adapter_config.json"
FILES = (WEIGHTS, CONFIG)


def refuse(config: dict[str, Any], adapter_config: dict[str, Any]) -> str | None:
    if adapter_config["fine_tune_type"] != "lora":
        return "the student was trained in full and has no adapter; --target mlx writes the whole model"
    return None


def write(source: Source, folder: Path, precision: str, report: Callable[[int, int], None]) -> None:
    import mlx.core as mx

    from mlx_ssd.training.arrays import write_arrays

    arrays = mx.load(str(source.adapter / WEIGHTS))
    write_arrays(folder / WEIGHTS, arrays, {"format": "mlx"})
    config = explicit(source.adapter_config, arrays, source.config)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def explicit(adapter_config: dict[str, Any], names: Iterable[str], config: dict[str, Any]) -> dict[str, Any]:
    """adapter_config.json with what its readers would otherwise assume: mlx-swift-lm requires rank and scale, takes
    its own choice of modules where there are no keys, and the last `num_layers` layers, for which -1 is none."""
    modules = {name.rpartition(".")[0] for name in names}
    inside = {module: found for module in modules if (found := layer_of(module))}
    keys = {key for _, key in inside.values()} | (modules - set(inside))
    count = adapter_config["num_layers"]
    if count < 0:
        count = config.get("num_hidden_layers") or 1 + max((layer for layer, _ in inside.values()), default=0)
    parameters = {**adapter_config["lora_parameters"], "dropout": 0.0, "keys": sorted(keys)}
    return {"fine_tune_type": "lora", "num_layers": count, "lora_parameters": parameters}


def load(source: Source, folder: Path, precision: str) -> MlxReader:
    from mlx_ssd import models
    from mlx_ssd.export.reference import MlxReader

    return MlxReader(models.load(source.base, source.recipe.model.dtype, folder)[0])


def rounded(source: Source, precision: str) -> None:
    return None


def survival(source: Source, folder: Path, precision: str) -> None:
    return None
