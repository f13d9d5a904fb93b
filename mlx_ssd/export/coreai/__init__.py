"""A bundle for Apple's Core AI (iOS and macOS 27): dense Qwen3 with its key-value cache as state.

float16, float32 and int4 hold the student alone. adapters holds the base's weights once and several functions over
them: main, the student; base; and every other LoRA arm of the run that is trained, under its name.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_ssd.export import Tolerance
from mlx_ssd.export.coreai import bundle
from mlx_ssd.torch_ref.qwen3_config import unsupported

if TYPE_CHECKING:
    from mlx_ssd.export import Reader
    from mlx_ssd.export.source import Source

EXTRA = "coreai"
PACKAGES = ("torch", "coreai", "coreai_torch", "coreai_opt")
# Each release takes others of the rest, and what they convert and write changes between them.
VERSIONS = {"coreai-core": "1.0.0b3", "coreai-torch": "0.4.3", "coreai-opt": "0.4.0"}
PRECISIONS = ("float16", "float32", "int4", "adapters")
CHECKED_BY = "Core AI's runtime (coreai-core), its cache filled token by token; on Linux, products summed in float32"
_IN_HALF = Tolerance(0.05, 1e-4, 0.99, "each step is rounded to float16", of_largest=0.005)
TOLERANCES = {
    "float16": _IN_HALF,
    "float32": Tolerance(1e-4, 1e-6, 1.0, "the order of sums in float32"),
    "int4": _IN_HALF,
    "adapters": _IN_HALF,
}
FILES = (bundle.METADATA, "*.aimodel", bundle.TOKENIZER)


def refuse(config: dict[str, Any], adapter_config: dict[str, Any]) -> str | None:
    for name, version in VERSIONS.items():
        if (installed := importlib.metadata.version(name)) != version:
            return f"{name} {installed} is installed, and exports are made with {version}: pip install -e '.[{EXTRA}]'"
    return unsupported(config)


def write(source: Source, folder: Path, precision: str, report: Callable[[int, int], None]) -> None:
    from mlx_ssd.export.coreai import convert, functions

    bundle.write(source, folder, precision)
    context = bundle.context_length(source.config)
    description = f"{source.name}: {bundle.public_name(source)} after self-distillation"
    made = functions.build(source, precision, context, report)
    convert.write(made, context, bundle.asset_path(source, folder), description)


def load(source: Source, folder: Path, precision: str) -> Reader:
    return _function(source, folder, precision, bundle.MAIN)


def rounded(source: Source, precision: str) -> Reader | None:
    from mlx_ssd.export.coreai import rounding

    return None if precision == "float32" else rounding.reader(source, precision)


def others(source: Source, folder: Path, precision: str) -> Iterator[tuple[str, Reader, Reader]]:
    """(function, the file's, what it should be) of those beside the student's."""
    from mlx_ssd.export.coreai import functions, rounding

    if precision == "adapters":
        yield bundle.BASE, _function(source, folder, precision, bundle.BASE), rounding.base_reader(source)
        for name, adapter in functions.others(source).items():
            arm = dataclasses.replace(source, adapter=adapter)
            yield name, _function(source, folder, precision, name), rounding.reader(arm, precision)


def survival(source: Source, folder: Path, precision: str) -> Sequence[dict[str, Any]] | None:
    """Of the weights after rounding; that the file holds these is what the conversion's figures say."""
    from mlx_ssd.export.coreai import rounding
    from mlx_ssd.export.survival import survival as left

    return None if precision in ("float32", "adapters") else left(*rounding.weights(source, precision))


def _function(source: Source, folder: Path, precision: str, name: str) -> Reader:
    from mlx_ssd.export.coreai.runtime import Asset, CoreAiReader

    bundle.check(source, folder, precision)
    asset = Asset(bundle.asset_path(source, folder))
    return CoreAiReader(asset, name, bundle.context_length(source.config))
