"""Bytes and seconds of a run, computed from the model's config.json, the recipe and the machine.

`Costs` says what a recipe takes, `prompts_for` sizes it for the hours there are, `training_plan` cuts a training step
for the memory there is.
"""

from mlx_ssd.budget.chips import CHIPS, chip_of
from mlx_ssd.budget.costs import Costs
from mlx_ssd.budget.described import UnusualModel
from mlx_ssd.budget.known_configs import KNOWN_CONFIGS
from mlx_ssd.budget.limits import MEMORY_SHARE, is_mac, usable_bytes
from mlx_ssd.budget.model_size import ModelSize
from mlx_ssd.budget.sizing import Sizing, prompts_for
from mlx_ssd.budget.speed import CalibratedSpeed, ChipSpeed, Speed
from mlx_ssd.budget.training import TrainingPlan, training_plan

__all__ = [
    "CHIPS",
    "KNOWN_CONFIGS",
    "MEMORY_SHARE",
    "CalibratedSpeed",
    "ChipSpeed",
    "Costs",
    "ModelSize",
    "Sizing",
    "Speed",
    "TrainingPlan",
    "UnusualModel",
    "chip_of",
    "is_mac",
    "prompts_for",
    "training_plan",
    "usable_bytes",
]
