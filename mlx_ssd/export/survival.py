"""How much of training's update is left in an artefact's weights, which rounding can erase."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlx_ssd.export.names import layer_of
from mlx_ssd.weights import AdaptedWeights


def survival(student: AdaptedWeights, read: Callable[[str], np.ndarray]) -> list[dict[str, Any]]:
    """One row a layer, of the modules whose weight was trained; `read` gives the artefact's tensors in float32.

    With the update D of a weight W and the artefact's weight W': `share` is <W' - W, D> / <D, D>, 1 where all of the
    update is there and 0 where none is; `noise` is |W' - W - D| / |D|, what else has changed. A layer's are over all
    its modules together, `modules` has each one's share. What stands outside the layers has a row of its own, without
    `layer`.
    """
    sums: dict[int | None, list[np.ndarray]] = {}
    modules: dict[int | None, dict[str, float]] = {}
    for name in student.changed:
        module = name.removesuffix(".weight")
        if module == name or len(student.shape(name)) < 2:
            continue
        update = student.delta(module).astype(np.float64).ravel()
        moved = (read(name) - student.read_base(name)).astype(np.float64).ravel()
        found = np.array([moved @ update, update @ update, np.square(moved - update).sum()])
        layer, key = layer_of(module) or (None, module)
        sums.setdefault(layer, []).append(found)
        modules.setdefault(layer, {})[key] = _ratio(found[0], found[1])
    return [
        ({} if layer is None else {"layer": layer}) | _row(sum(sums[layer])) | {"modules": modules[layer]}
        for layer in sorted(sums, key=lambda layer: (layer is None, layer or 0))
    ]


def _row(sums: np.ndarray) -> dict[str, float]:
    return {"share": _ratio(sums[0], sums[1]), "noise": _ratio(np.sqrt(sums[2]), np.sqrt(sums[1]))}


def _ratio(part: float, whole: float) -> float:
    """Of an update that is zero all is left."""
    return float(part / whole) if whole else 1.0
