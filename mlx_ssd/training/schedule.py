"""The learning rate of each optimizer step: linear warm-up, then half a cosine."""

import math


def learning_rate(step: int, total_steps: int, *, peak: float, warmup_fraction: float, final_fraction: float) -> float:
    """The rate of update `step` (from 0) of `total_steps`.

    It rises by equal parts of `peak` over round(warmup_fraction * total_steps) steps, the first of which is
    already above zero, and falls from `peak` to exactly `final_fraction * peak` at the last step.
    """
    warmup_steps = round(warmup_fraction * total_steps)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    at_peak = max(warmup_steps - 1, 0)
    progress = (step - at_peak) / max(total_steps - 1 - at_peak, 1)
    return peak * (final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress)))
