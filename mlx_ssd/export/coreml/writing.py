"""Writes the folder: the package in a precision, its metadata, and the tokenizer's files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from mlx_ssd import arms
from mlx_ssd.errors import BadInput
from mlx_ssd.export.coreml import convert
from mlx_ssd.export.coreml.contract import (
    ADAPTERS,
    BLOCK,
    PACKAGE,
    STATES,
    TOKENIZER,
    cache_bytes,
    context_of,
    function_of,
)
from mlx_ssd.export.memory import SPARE_BYTES, WHOLE, parameters, refuse_beyond
from mlx_ssd.export.source import Source
from mlx_ssd.layout import BASE
from mlx_ssd.models import is_hub_name
from mlx_ssd.recipe import Recipe
from mlx_ssd.storage import read_json
from mlx_ssd.torch_ref import qwen3
from mlx_ssd.torch_ref.qwen3_config import Qwen3Config
from mlx_ssd.weights import AdaptedWeights

Report = Callable[[int, int], None]
TOKENIZER_FILES = ("*.json", "*.txt", "*.jinja", "tokenizer.model")  # config.json too: Swift's tokenizers read it
INDEX = "model.safetensors.index.json"


def write(source: Source, folder: Path, precision: str, report: Report) -> None:
    config, package = Qwen3Config.of(source.config), folder / PACKAGE
    weights = AdaptedWeights(source.base.path, source.adapter)
    adapters = _adapters(source, weights) if precision == ADAPTERS else {}
    rows = (config.hidden, config.intermediate, config.heads * config.head_dim)
    if precision == "int4" and any(size % BLOCK for size in rows):
        raise BadInput(f"int4 has a scale for {BLOCK} weights of a row, and this model's rows are no multiples of that")
    check_memory(parameters(weights), 1 + len(adapters))
    scratch = folder / ".parts"
    scratch.mkdir()
    facts = {}
    if adapters:
        parts = {BASE: scratch / f"{BASE}.mlpackage"}
        counted = _Counted(report, (1 + len(adapters)) * len(weights.names))
        convert.convert(_twin(weights, weights.read_base, counted), parts[BASE])
        for arm, adapter in adapters.items():
            parts[function_of(arm)] = scratch / f"{arm}.mlpackage"
            factors = {module: adapter.factors(module) for module in adapter.adapted}
            convert.convert(_twin(weights, weights.read_base, counted, factors), parts[function_of(arm)])
        convert.combine(parts, function_of(source.files.arm), package)
        facts = {"functions": ", ".join(parts), "base_weight_bytes": str(convert.weight_bytes(parts[BASE]))}
    else:
        half = package if precision == "float16" else scratch / PACKAGE
        convert.convert(_twin(weights, weights.read, _Counted(report, len(weights.names))), half)
        if half != package:
            convert.quantize(half, package, precision)
    shutil.rmtree(scratch)
    convert.describe(package, *_description(source, config, precision, facts))
    _write_tokenizer(source.base.path, folder / TOKENIZER)


def check_memory(count: int, functions: int) -> None:
    """Raises BadInput where a conversion of so many parameters cannot fit into this machine's memory."""
    # To convert takes a float16 copy, to join functions one for each of them; to verify, a float32 model.
    refuse_beyond(count, count * max(2 * functions, WHOLE) + SPARE_BYTES, "convert and verify", "mlx")


class _Counted:
    """Reports each tensor that is read, of all that will be."""

    def __init__(self, report: Report, total: int):
        self.report, self.total, self.done = report, total, 0

    def __call__(self) -> None:
        self.done += 1
        self.report(self.done, self.total)


def _adapters(source: Source, weights: AdaptedWeights) -> dict[str, AdaptedWeights]:
    """By arm: every student of the run that is trained, with an adapter of the same base."""
    if weights.method != "lora":
        raise BadInput("the student was trained in full and has no adapter to be a function; take another --precision")
    found = {}
    for arm in arms.students(Recipe.load(source.files.recipe), source.files.directory):
        folder = arm.files.adapter
        if folder.exists() and read_json(folder / "adapter_config.json")["fine_tune_type"] == "lora":
            found[arm.name] = AdaptedWeights(source.base.path, folder)
    if len({function_of(name) for name in found}) < len(found):
        raise BadInput(f"two of the arms {', '.join(found)} would be functions of one name; rename one")
    return found


def _twin(
    weights: AdaptedWeights, read: Callable, counted: _Counted, factors: qwen3.Factors | None = None
) -> qwen3.Qwen3:
    """In float16 from the start: a float32 model would take twice the memory, and be rounded the same."""
    config = Qwen3Config.of(weights.config)

    def one(name: str):
        counted()
        return read(name)

    return qwen3.build(config, context_of(config), weights.names, one, torch.float16, factors)


def _description(
    source: Source, config: Qwen3Config, precision: str, more: dict[str, str]
) -> tuple[str, str, dict[str, str]]:
    """(sentence, licence, the rest)."""
    base = source.recipe.model.path
    facts = {
        "base": base,
        "base_revision": source.base.revision,
        "student": source.revision,
        "precision": precision,
        "context": str(context_of(config)),
        "vocabulary": str(config.vocabulary),
        "states": ", ".join(STATES),
        "state_bytes": str(cache_bytes(config)),
    }
    if is_hub_name(base):  # where swift-transformers looks for the tokenizer, if it is given none
        facts["co.huggingface.exporters.name"] = base
    return f"{source.name}: {base}, self-distilled", f"that of the base, {base}", facts | more


def _write_tokenizer(base: Path, folder: Path) -> None:
    """The base's own files: saved anew by Transformers, they would name classes that Swift does not know."""
    folder.mkdir()
    for file in sorted({file for pattern in TOKENIZER_FILES for file in base.glob(pattern)}):
        if file.name != INDEX:
            shutil.copy(file, folder / file.name)
