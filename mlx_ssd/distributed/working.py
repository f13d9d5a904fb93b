"""`mlx-ssd work`: a worker under a supervisor, which starts it again with less where memory ran out."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from mlx_ssd import machine
from mlx_ssd.distributed import address
from mlx_ssd.distributed.worker import Settings
from mlx_ssd.errors import BadInput, Interrupted, WorkFailed
from mlx_ssd.supervision import supervise


def supervised(settings: Settings) -> None:
    """Returns when there is no more work. Raises BadInput, WorkFailed, Interrupted."""
    address.secret()  # before anything is started
    machine.keep_awake()
    command = [sys.executable, "-P", "-m", "mlx_ssd.distributed", json.dumps(asdict(settings))]
    directory = Path(tempfile.gettempdir())
    nothing = os.open(os.devnull, os.O_RDONLY)  # a worker holds no run
    again = "the same command joins again"
    code = supervise(command, nothing, name="the worker", directory=directory, again=again)
    if code == 130:
        raise Interrupted("interrupted; what was begun here is handed to others")
    if code:
        raise WorkFailed("") if code == 1 else BadInput("")
