"""Bytes and seconds of a run, computed from the model's config.json, the recipe and the machine.

`prompts_for` sizes a run for the hours there are, `training_plan` cuts a training step for the memory there is.
"""

from mlx_ssd.budget.chips import CHIPS, chip_of
from mlx_ssd.budget.model_size import KNOWN_CONFIGS, ModelSize
from mlx_ssd.budget.sizing import MEMORY_SHARE, Sizing, decoding_step_seconds, prompts_for
from mlx_ssd.budget.training import TrainingPlan, training_plan

__all__ = [
    "CHIPS",
    "KNOWN_CONFIGS",
    "MEMORY_SHARE",
    "ModelSize",
    "Sizing",
    "TrainingPlan",
    "chip_of",
    "decoding_step_seconds",
    "prompts_for",
    "training_plan",
]
