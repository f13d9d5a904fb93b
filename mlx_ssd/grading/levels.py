"""Whether this machine shuts programs in as a recipe demands."""

import warnings
from functools import cache
from typing import Literal

from mlx_ssd.errors import BadInput
from mlx_ssd.grading.process import ProcessSandbox
from mlx_ssd.grading.sandbox import Level

# What a recipe may ask for: the levels (docs/sandbox.md) that are enough.
ENOUGH = {
    "any": ("namespaces", "landlock", "seatbelt", "limits"),
    "landlock": ("namespaces", "landlock", "seatbelt"),
    "namespaces": ("namespaces",),
}
Demand = Literal["any", "landlock", "namespaces"]


class LittleShutIn(UserWarning):
    """Programs are held by their limits alone."""


@cache
def level_here() -> Level:
    return ProcessSandbox().level()


def check_level(demand: Demand) -> None:
    """BadInput where the machine does not give what `demand` asks for; a LittleShutIn warning where it gives
    limits alone. WorkFailed where the sandbox does not start."""
    level = level_here()
    if level not in ENOUGH[demand]:
        raise BadInput(
            f"evaluate.sandbox is {demand}, and this machine shuts programs in by {level} only; "
            "grade on one that gives more, or set evaluate.sandbox to any"
        )
    if level == "limits":
        warnings.warn(
            "this machine gives nothing to shut programs in but limits of time, memory and output: they can read and "
            "write your files, use the network and signal your processes (docs/sandbox.md)",
            LittleShutIn,
            stacklevel=2,
        )
