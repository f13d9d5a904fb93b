"""Ways in which an artefact can be wrong while it looks right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx

Arrays = dict[str, mx.array]


def weights(folder: Path, change: Callable[[Arrays], Arrays]) -> None:
    """Rewrite the one file of weights in `folder`."""
    [file] = folder.glob("*.safetensors")
    arrays, metadata = mx.load(str(file), return_metadata=True)
    mx.eval(arrays)
    mx.save_safetensors(str(file), change(dict(arrays)), metadata)


def settings(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Rewrite a JSON file."""
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def corrupted(folder: Path) -> None:
    """One row of one matrix is zero."""

    def change(arrays: Arrays) -> Arrays:
        name = next(name for name in sorted(arrays) if "layers.1.mlp.down_proj" in name and arrays[name].ndim == 2)
        arrays[name][0] = 0
        return arrays

    weights(folder, change)


def swapped(folder: Path) -> None:
    """Layers 1 and 2 have each other's value projection."""
    names = {"layers.1.self_attn.v_proj": "layers.2.self_attn.v_proj"}
    names |= {b: a for a, b in names.items()}

    def renamed(name: str) -> str:
        return next((name.replace(a, b) for a, b in names.items() if a in name), name)

    weights(folder, lambda arrays: {renamed(name): array for name, array in arrays.items()})


def scaled(folder: Path) -> None:
    """One matrix is a fiftieth too large; of a quantized one its scales are."""

    def change(arrays: Arrays) -> Arrays:
        module = "model.layers.3.self_attn.o_proj"
        name = f"{module}.scales" if f"{module}.scales" in arrays else f"{module}.weight"
        arrays[name] = (arrays[name].astype(mx.float32) * 1.02).astype(arrays[name].dtype)
        return arrays

    weights(folder, change)


def missing(folder: Path) -> None:
    """One matrix is not there."""
    weights(folder, lambda arrays: {name: array for name, array in arrays.items() if "2.mlp.up_proj" not in name})


def cut(folder: Path) -> None:
    """The last bytes of the weights are missing."""
    [file] = folder.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1000])


def endless(folder: Path) -> None:
    """The last norm is not a number."""

    def change(arrays: Arrays) -> Arrays:
        name = next(name for name in sorted(arrays) if arrays[name].dtype != mx.uint32)
        arrays[name] = arrays[name] * float("nan")
        return arrays

    weights(folder, change)
