"""`python -m mlx_ssd.planning`: what measuring.py measures, as JSON from what calibration.py asks for, as JSON."""

from __future__ import annotations

import json
import sys

from mlx_ssd import models
from mlx_ssd.child import end_with


def main() -> int:
    work = json.loads(sys.stdin.read())
    end_with(work["parent"])
    models.without_pytorch()  # as a stage's process starts
    from mlx_ssd.planning.measuring import measure

    print(json.dumps(measure(work)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
