"""Run by test_kill.py in a process of its own: train in the directory given, print a line after each step.

    python -m tests.training.train_child DIRECTORY tokens|distribution
"""

import sys

from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.training.loop import train
from tests.training.tiny import Held, Settings, make_rows, tiny_model

SETTINGS = Settings(epochs=60, rows_per_step=3, checkpoint_every_steps=3, dropout=0.1, validation=Held(every_steps=4))
STEPS = 120  # two an epoch

if __name__ == "__main__":
    train(
        tiny_model(),
        make_rows(10),
        SETTINGS.but(targets=sys.argv[2]),
        sys.argv[1],
        identity={},
        on_progress=lambda **progress: print(progress["step"], flush=True),
        target_policy=DecodingPolicy(1.6, 20, 0.8),
    )
