"""What a run will take, before anything is loaded: `mlx-ssd plan`, and the lines that `mlx-ssd run` begins with.

    plan.py          bytes by part and seconds of each stage, the largest that fits, disk; plan.json
    mends.py         what to change where a recipe does not fit
    calibration.py   this machine's speed, measured once in a child (measuring.py) and kept
    stand_in.py      what is measured in place of the model
    sized.py         a recipe sized for a machine
    words.py         the same for people
"""

from mlx_ssd.planning.calibration import calibrate, speed_of
from mlx_ssd.planning.plan import Plan, known_config, plan_for
from mlx_ssd.planning.sized import sized, write_recipe
from mlx_ssd.planning.words import in_full, in_short, on

__all__ = [
    "Plan",
    "calibrate",
    "in_full",
    "in_short",
    "known_config",
    "on",
    "plan_for",
    "sized",
    "speed_of",
    "write_recipe",
]
