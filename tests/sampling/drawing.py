"""Run by test_kill.py in a process of its own: completes a journal, and has it on disk at once.

    python -m tests.sampling.drawing JOURNAL
"""

import sys
from pathlib import Path

from mlx_ssd import models, storage
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.problems import read_problems
from mlx_ssd.recipe import Model, ProblemSource, Prompt
from mlx_ssd.records import Sample
from mlx_ssd.sampling.collect import Target, collect

PROBLEMS, SAMPLES = 80, 6

if __name__ == "__main__":
    storage.FLUSH_SECONDS = 0
    model, tokenizer = models.load(models.locate(Model()), "float32")
    collect(
        [Target(Path(sys.argv[1]), DecodingPolicy(1.6, 20, 0.8))],
        Sample,
        read_problems(ProblemSource(limit=PROBLEMS), "train"),
        model,
        tokenizer,
        prompt=Prompt(),
        samples_per_problem=SAMPLES,
        max_tokens=128,
        rows=16,
        memory_gb=0.006,  # so little that not all rows find room
        loops=None,
        seed=0,
        stream="train/round-1",
        revision="embedded",
        label="sample",
    )
