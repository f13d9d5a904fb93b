"""The models that a bundle's functions are: the student, or base and adapters over the same tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch

from mlx_ssd import arms
from mlx_ssd.errors import BadInput
from mlx_ssd.export.coreai import convert, memory
from mlx_ssd.export.coreai.bundle import BASE, MAIN
from mlx_ssd.export.source import Source
from mlx_ssd.recipe import Recipe
from mlx_ssd.storage import read_json
from mlx_ssd.torch_ref import qwen3
from mlx_ssd.torch_ref.qwen3_config import Qwen3Config
from mlx_ssd.weights import AdaptedWeights


def build(
    source: Source, precision: str, context: int, report: Callable[[int, int], None]
) -> dict[str, convert.Function]:
    """Function name -> module, in the precision. `report(done, total)` counts tensors."""
    student = AdaptedWeights(source.base.path, source.adapter)
    memory.refuse_beyond(student, precision)
    apart = precision == "adapters"
    adapters = others(source) if apart else {}
    read, done = student.read_base if apart else student.read, 0

    def reported(name: str):
        nonlocal done
        report(done, len(student.names))
        done += 1
        return read(name)

    dtype = torch.float32 if precision == "float32" else torch.float16
    # One position more than can be used: torch.export refuses to slice a table up to its very end.
    model = qwen3.build(Qwen3Config.of(source.config), context + 1, student.names, reported, dtype)
    if precision == "int4":
        return {MAIN: convert.in_int4(model)}
    if not apart:
        return {MAIN: convert.Function(model)}
    weights = {MAIN: student} | {name: AdaptedWeights(source.base.path, path) for name, path in adapters.items()}
    found = {name: convert.Function(with_branches(model, one)) for name, one in weights.items()}
    return found | {BASE: convert.Function(model)}


def with_branches(model: qwen3.Qwen3, adapted: AdaptedWeights) -> qwen3.Qwen3:
    """A copy that has the same tensors, and an adapter's unfused update beside them."""
    tensors = [*model.parameters(), *model.buffers()]
    twin = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    for name in adapted.adapted:
        if not isinstance(linear := twin.get_submodule(name), torch.nn.Linear):
            raise BadInput(f"the adapter changes {name}, no linear layer, which --precision adapters cannot keep apart")
        twin.set_submodule(name, qwen3.LoraLinear(linear, *adapted.factors(name)))
    return twin


def others(source: Source) -> dict[str, Path]:
    """Name -> adapter of each other arm of the run that is trained, as LoRA: one trained in full shares no weights.

    Raises BadInput where the student itself is none, or an arm has the name of another function.
    """
    if source.adapter_config["fine_tune_type"] != "lora":
        raise BadInput("the student was trained in full, so --precision adapters would hold two whole models")
    found = {}
    for arm in arms.students(Recipe.load(source.files.recipe), source.files.directory):
        adapter = arm.files.adapter
        if arm.name == source.files.arm or not adapter.exists():
            continue
        if read_json(adapter / "adapter_config.json")["fine_tune_type"] != "lora":
            continue
        if arm.name in (MAIN, BASE):
            raise BadInput(f"the arm {arm.name} would be a function of that name, which the student or the base has")
        found[arm.name] = adapter
    return found
