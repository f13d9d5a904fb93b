"""A configuration's model, loaded as it is to be measured (in the process that measures it)."""

from __future__ import annotations

import contextlib
import gc
import io
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import quantize_model

from mlx_ssd import models
from mlx_ssd.bench.configurations import FUSED, QUANTIZED, Subject
from mlx_ssd.errors import BadInput
from mlx_ssd.export.bits import GROUP_SIZE
from mlx_ssd.models import ModelSource
from mlx_ssd.storage import read_json


def load(subject: Subject) -> tuple[nn.Module, Any]:
    """(model, tokenizer), all weights in memory. Raises BadInput for a folder that cannot be loaded.

    Weights are read one by one where they are made into others, so that two whole models are never in memory. An
    adapter is fused in full precision before it is quantized, as an export is; on a base that is stored quantized
    mlx-lm fuses, in the base's own bits.
    """
    source, adapter = ModelSource(Path(subject.folder), subject.revision), subject.adapter and Path(subject.adapter)
    if not subject.made_in_memory:
        return models.load(source, subject.dtype, adapter)
    model, tokenizer = models.load(source, subject.dtype, lazy=True)
    fused = subject.way == FUSED
    if fused:
        _adapt(model, subject)
        model.update_modules(tree_unflatten([(p, m.fuse()) for p, m in model.named_modules() if hasattr(m, "fuse")]))
    if subject.bits in QUANTIZED:
        with contextlib.redirect_stdout(io.StringIO()):  # it says how many bits a weight has
            model, _ = quantize_model(model, {}, GROUP_SIZE, subject.bits)
        if not any(isinstance(module, QUANTIZED_MODULES) for module in model.modules()):
            raise BadInput(f"--bits {subject.bits}: no weight of {subject.name} has groups of {GROUP_SIZE}")
    if adapter and not fused:
        _adapt(model, subject)
    for _, array in tree_flatten(model.parameters()):
        mx.eval(array)
    model.eval()
    return model, tokenizer


QUANTIZED_MODULES = (nn.QuantizedLinear, nn.QuantizedEmbedding, QuantizedSwitchLinear)


def _adapt(model: nn.Module, subject: Subject) -> None:
    try:
        load_adapters(model, subject.adapter)
    except Exception as error:  # whatever the loader meets in a damaged folder
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(f"cannot load the adapter {subject.adapter}: {reason}") from error


def timed_loads(subject: Subject, times: int) -> tuple[nn.Module, Any, list[float]]:
    """(model, tokenizer, seconds of each load). Each begins without the one before."""
    model = tokenizer = None
    seconds = []
    for _ in range(times):
        model = tokenizer = None
        gc.collect()
        mx.clear_cache()
        started = time.perf_counter()
        model, tokenizer = load(subject)
        seconds.append(time.perf_counter() - started)
    return model, tokenizer, seconds


def facts_of(model: nn.Module, folder: Path) -> dict[str, Any]:
    """Of the loaded model: its parameters, their bits and bytes, and what it computes in."""
    arrays = dict(tree_flatten(model.parameters()))
    quantized = [module for module in model.modules() if isinstance(module, QUANTIZED_MODULES)]
    widths = [module.bits for module in quantized] or [8 * max(arrays.values(), key=lambda a: a.nbytes).dtype.size]
    return {
        "bits": max(set(widths), key=widths.count),
        "quantized": bool(quantized),
        "dtype": str(_computed_in(arrays).dtype).rpartition(".")[2],
        "parameters": sum(a.size for a in arrays.values()) + sum(map(_unpacked, quantized)),
        "weight_bytes": sum(array.nbytes for array in arrays.values()),
        "expert_bytes": sum(_bytes(m) for m in model.modules() if isinstance(m, (SwitchLinear, QuantizedSwitchLinear))),
        "looked_up_bytes": 0 if _tied(folder) else sum(_bytes(m) for m in model.modules() if _embedding(m)),
    }


def _computed_in(arrays: dict[str, mx.array]) -> mx.array:
    """The largest array of floating point, but for an adapter: of a quantized model its scales."""
    floating = (a for name, a in arrays.items() if mx.issubdtype(a.dtype, mx.floating) and "lora_" not in name)
    return max(floating, key=lambda array: array.nbytes)


def _unpacked(module: nn.Module) -> int:
    """Of a quantized module, by how many weights it has more than numbers that hold them."""
    held = sum(array.size for name, array in module.parameters().items() if name in ("weight", "scales", "biases"))
    return module.weight.size * 32 // module.bits - held


def _embedding(module: nn.Module) -> bool:
    return isinstance(module, (nn.Embedding, nn.QuantizedEmbedding))


def _tied(folder: Path) -> bool:
    """Whether the embedding is the head too, and so read whole at each step."""
    config = read_json(folder / "config.json")
    return bool((config.get("text_config") or config).get("tie_word_embeddings"))


def _bytes(module: nn.Module) -> int:
    return sum(array.nbytes for _, array in tree_flatten(module.parameters()))
