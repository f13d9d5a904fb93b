"""The optimizer's step in PyTorch: clipping, the learning rate's course and AdamW; a twin of `training.loop`'s."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Optimizer:
    """`settings` has learning_rate, warmup_fraction, final_fraction, betas, weight_decay and clip_norm."""

    def __init__(self, parameters: Mapping[str, Tensor], settings: Any, total_steps: int):
        self._parameters, self._settings, self._total_steps = parameters, settings, total_steps
        self._adam = torch.optim.AdamW(
            list(parameters.values()),
            lr=settings.learning_rate,
            betas=tuple(settings.betas),
            eps=1e-8,
            weight_decay=settings.weight_decay,
        )
        self._done = 0

    def step(self, gradient: Mapping[str, Tensor]) -> float:
        """Change the parameters in place; the gradient's norm before it was clipped."""
        for name, parameter in self._parameters.items():
            parameter.grad = gradient[name].clone()
        norm = torch.nn.utils.clip_grad_norm_(list(self._parameters.values()), self._settings.clip_norm)
        for group in self._adam.param_groups:
            group["lr"] = self.rate(self._done)
        self._adam.step()
        self._done += 1
        return norm.item()

    def rate(self, step: int) -> float:
        """Of update `step`, from 0: up in equal parts, its peak at the warm-up's last step, then down half a cosine
        whose end is the last step."""
        settings = self._settings
        warmup = round(settings.warmup_fraction * self._total_steps)
        if step < warmup:
            return settings.learning_rate * (step + 1) / warmup
        first, last = max(warmup, 1) - 1, self._total_steps - 1
        share = (1 + math.cos(math.pi * (step - first) / max(last - first, 1))) / 2
        return settings.learning_rate * (settings.final_fraction + (1 - settings.final_fraction) * share)
