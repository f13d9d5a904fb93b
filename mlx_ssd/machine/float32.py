"""Float32 with all its bits, for what is compared with it."""

from __future__ import annotations

import os


def keep_float32_whole() -> None:
    """Have MLX multiply float32 matrices in float32. It asks once: call this before it is imported.

    Apple's GPUs since the M5 can multiply them in TF32, with 10 bits of 23 behind the point, and MLX lets them if it is
    told nothing. A product is then off by up to 1e-3 of itself, which is as much as a logit may be off here.
    """
    os.environ["MLX_ENABLE_TF32"] = "0"
