"""`python -m mlx_ssd.distributed SETTINGS`: a worker in a process of its own, started by `mlx-ssd work`.

A process of its own for the same reasons as a stage: the BLAS library must be in place before it starts, and a Metal
out-of-memory abort ends it.
"""

from __future__ import annotations

import json
import sys

from mlx_ssd import models
from mlx_ssd.child import exit_code
from mlx_ssd.distributed.worker import Settings, work


def main() -> None:
    models.without_pytorch()
    settings = json.loads(sys.argv[1])
    drawn = work(Settings(**settings | {"address": tuple(settings["address"])}))
    print(f"no more work: {drawn:,} samples were drawn here")


if __name__ == "__main__":
    sys.exit(exit_code(main))
