"""Run by test_kill.py in processes of their own: train in a directory."""

import os
from pathlib import Path

from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.training.loop import train
from tests.training.tiny import Held, Settings, make_rows, tiny_model

SETTINGS = Settings(epochs=60, rows_per_step=3, checkpoint_every_steps=3, dropout=0.1, validation=Held(every_steps=4))
STEPS = 120  # two an epoch


def train_here(directory: Path, targets: str, steps: Path = Path(os.devnull)) -> None:
    """targets: "tokens" or "distribution". `steps` gets a line after each step."""
    with open(steps, "w") as log:
        train(
            tiny_model(),
            make_rows(10),
            SETTINGS.but(targets=targets),
            directory,
            identity={},
            on_progress=lambda **progress: print(progress["step"], file=log, flush=True),
            target_policy=DecodingPolicy(1.6, 20, 0.8),
        )
