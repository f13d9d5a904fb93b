"""A line of the table: how far a quantity in MLX is from the same in PyTorch, and whether that is near enough."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlx_ssd import heartbeat


@dataclass(frozen=True)
class Row:
    """`figures` may hold max_abs and mean_abs of the difference; relative, the worst array's; kl in nats, top1, and
    differ, a count. A figure that means nothing for the quantity is absent."""

    quantity: str
    figures: Mapping[str, float]
    judged: str  # the figure that the tolerance is of
    tolerance: float
    why: str  # where the tolerance comes from
    note: str = ""
    verdict: str = field(init=False)

    def __post_init__(self) -> None:
        near = self.figures[self.judged] <= self.tolerance  # False of nan
        object.__setattr__(self, "verdict", "pass" if near else "fail")

    @property
    def facts(self) -> dict[str, Any]:
        """As in parity.json. JSON knows no number for what is not finite."""
        figures = {name: value if math.isfinite(value) else str(value) for name, value in self.figures.items()}
        facts = {"quantity": self.quantity, **figures, "judged": self.judged, "tolerance": self.tolerance}
        return facts | {"why": self.why, "note": self.note, "verdict": self.verdict}


def differences(pairs: Iterable[tuple[Any, Any]]) -> dict[str, float]:
    """max_abs and mean_abs of (found, expected) arrays of one shape."""
    largest = total = count = 0.0
    for found, expected in pairs:
        difference = _difference(found, expected)
        largest = max(largest, float(difference.max(initial=0.0)))
        total, count = total + float(difference.sum()), count + difference.size
        heartbeat.alive()  # the arrays may be those of a whole model
    return {"max_abs": largest, "mean_abs": total / count}


def worst_relative(pairs: Iterable[tuple[Any, Any]], by_norm: bool = False) -> float:
    """Of (found, expected) arrays the largest of: greatest difference by greatest value, or norm by norm."""
    measure = np.linalg.norm if by_norm else np.max
    worst = 0.0
    for found, expected in pairs:
        size = float(measure(np.abs(np.asarray(expected, np.float64)).ravel()))
        off = float(measure(_difference(found, expected).ravel()))
        worst = max(worst, off / size if size else (math.inf if off else 0.0))
    return worst


def _difference(found: Any, expected: Any) -> np.ndarray:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        raise ValueError(f"arrays of shape {found.shape} beside {expected.shape}")
    return np.nan_to_num(np.abs(found - expected), nan=np.inf)  # what is no number is as wrong as can be
