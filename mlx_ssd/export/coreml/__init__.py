"""Core ML: a stateful .mlpackage for iOS 18 and macOS 15 and later, with its tokenizer beside it.

`adapters` holds the base and the trained students of the run as functions of one package, which share the base's
weights; the other precisions hold one student, its update added to the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_ssd.export import Tolerance
from mlx_ssd.export.coreml import contract
from mlx_ssd.torch_ref.qwen3_config import unsupported

if TYPE_CHECKING:
    from mlx_ssd.export.coreml.reader import CoreMLReader
    from mlx_ssd.export.source import Source
    from mlx_ssd.export.torch_reader import TorchReader

EXTRA = "coreml"
PACKAGES = ("torch", "coremltools")
PRECISIONS = ("float16", "int8", "int4", contract.ADAPTERS)
CHECKED_BY = "an interpreter of the package's own files, in float16 (not Core ML's runtime)"
# Every operation of every layer rounds to float16, in which a logit of 16 has a last place of 0.016.
_IN_HALF = Tolerance(0.05, 1e-3, 0.99, "every operation rounds to float16", of_largest=0.005)
TOLERANCES = dict.fromkeys(PRECISIONS, _IN_HALF)
FILES = (contract.PACKAGE, *(f"{contract.TOKENIZER}/{name}" for name in ("tokenizer.json", "tokenizer_config.json")))


def refuse(config: dict[str, Any], adapter_config: dict[str, Any]) -> str | None:
    return unsupported(config)


def write(source: Source, folder: Path, precision: str, report: Callable[[int, int], None]) -> None:
    from mlx_ssd.export.coreml import writing

    writing.write(source, folder, precision, report)


def load(source: Source, folder: Path, precision: str) -> CoreMLReader:
    from mlx_ssd.export.coreml import reader

    return reader.load(source, folder / contract.PACKAGE, precision, TOLERANCES[precision])


def rounded(source: Source, precision: str) -> TorchReader:
    from mlx_ssd.export.coreml import reader

    return reader.rounded_student(source, precision)


def survival(source: Source, folder: Path, precision: str) -> list[dict[str, Any]] | None:
    from mlx_ssd.export.coreml import reader

    return None if precision == contract.ADAPTERS else reader.survival_of(source, folder / contract.PACKAGE)
