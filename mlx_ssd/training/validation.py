"""The loss on held-out samples, the best student so far by it, and when to stop for want of a better one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_ssd.training.batches import Batch
from mlx_ssd.training.forward import Head
from mlx_ssd.training.loss import Soft, mean_loss
from mlx_ssd.training.modes import without_dropout


@dataclass
class Best:
    """The best student so far; all of it goes into a checkpoint."""

    step: int = 0  # optimizer steps done when it was found; 0: the base
    loss: float = math.inf  # nats a held-out completion token
    worse_since: int = 0  # validations since then
    weights: dict[str, mx.array] = field(default_factory=dict)

    def see(self, step: int, loss: float | None, weights: dict[str, mx.array]) -> None:
        """loss: None where it is not finite."""
        if loss is not None and loss < self.loss:
            self.step, self.loss, self.worse_since, self.weights = step, loss, 0, weights
        else:
            self.worse_since += 1


class Validation:
    """The held-out samples of a training.

    `settings` has `every_steps` and `patience`: so many validations without a better loss end the training; None: no
    early end.
    """

    def __init__(self, batches: Sequence[Batch], settings: Any, soft: Soft | None, terms: Soft | None):
        """soft: the targets of training, None for tokens; terms: whose loss, with its terms, is measured besides."""
        self._batches, self._settings, self._soft, self._terms = batches, settings, soft, terms

    def is_due(self, step: int, total_steps: int) -> bool:
        return step % self._settings.every_steps == 0 or step == total_steps

    def measure(self, model: nn.Module, head: Head | None) -> dict[str, float]:
        """The loss without dropout, and its terms; nothing where one is not finite."""
        with without_dropout(model):
            loss = mean_loss(model, head, self._batches, self._soft)
            measured = {"loss": loss.total, **loss.terms}
            if self._terms:
                soft = mean_loss(model, head, self._batches, self._terms)
                measured |= {"loss_distribution": soft.total, **soft.terms}
        return measured if all(map(math.isfinite, measured.values())) else {}

    def is_over(self, best: Best) -> bool:
        return self._settings.patience is not None and best.worse_since >= self._settings.patience
