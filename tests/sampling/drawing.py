"""Run by test_kill.py in processes of their own: completes a journal, and has it on disk at once."""

from pathlib import Path

from mlx_ssd import models, storage
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.problems import read_problems
from mlx_ssd.records import Sample
from mlx_ssd.sampling.collect import Target, collect
from mlx_ssd.sections import Model, ProblemSource, Prompt

PROBLEMS, SAMPLES = 80, 3


def draw(journal: Path) -> None:
    storage.FLUSH_SECONDS = 0
    model, tokenizer = models.load(models.locate(Model()), "float32")
    collect(
        [Target(journal, DecodingPolicy(1.6, 20, 0.8))],
        Sample,
        read_problems(ProblemSource(limit=PROBLEMS), "train"),
        model,
        tokenizer,
        prompt=Prompt(),
        samples_per_problem=SAMPLES,
        max_tokens=48,
        rows=16,
        memory_gb=0.005,  # so little that not all rows find room
        loops=None,
        seed=0,
        stream="train/round-1",
        revision="embedded",
        label="sample",
    )
