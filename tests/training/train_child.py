"""Run by test_kill.py in a process of its own: train in the directory given, print a line after each step."""

import sys

from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.training.loop import train
from tests.training.tiny import Settings, make_rows, tiny_model

SETTINGS = Settings(targets=sys.argv[2], epochs=10, checkpoint_every_steps=2, dropout=0.1)

if __name__ == "__main__":
    train(
        tiny_model(),
        make_rows(10),
        SETTINGS,
        sys.argv[1],
        identity={},
        on_progress=lambda **progress: print(progress["step"], flush=True),
        target_policy=DecodingPolicy(1.6, 20, 0.8),
    )
