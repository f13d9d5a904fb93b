"""The work that is measured, in a process of its own: the run's engine, and its trainer."""

from __future__ import annotations

import tempfile
import time
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np

from benchmarks.planning.cases import STEPS, Case, Subject, lengths
from mlx_ssd import machine, models
from mlx_ssd.budget import usable_bytes
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.decoding.rng import sample_key
from mlx_ssd.machine.working_set import CACHE_SHARE
from mlx_ssd.sampling.engine import Decoding
from mlx_ssd.sampling.requests import Request
from mlx_ssd.training.loop import train as run
from mlx_ssd.training.rows import TokenRow


def child(asked: dict[str, Any]) -> dict[str, Any]:
    """Load the model and do the work, `repeats` times."""
    case, subject = Case(**asked["case"]), Subject.of(Case(**asked["case"]), asked["place"])
    model, _ = models.load(models.locate(subject.recipe.model), subject.recipe.model.dtype)
    seconds = []
    for _ in range(asked["repeats"]):
        start = time.perf_counter()
        (sample if case.stage == "sample" else train)(subject, model)
        seconds.append(time.perf_counter() - start)
        if case.stage == "train" and asked["repeats"] > len(seconds):  # it wears an adapter, or is another
            model, _ = models.load(models.locate(subject.recipe.model), subject.recipe.model.dtype)
    return {"seconds": seconds, "peak_mlx_bytes": mx.get_peak_memory(), "peak_rss_bytes": machine.peak_rss_bytes()}


def tokens(subject: Subject, count: int) -> list[int]:
    return np.random.default_rng(count).integers(5, subject.size.vocabulary, count).tolist()


def sample(subject: Subject, model: Any) -> None:
    policy = DecodingPolicy(**subject.recipe.sample.decoding.model_dump())
    requests = [
        Request(i, tokens(subject, prompt), policy, sample_key(0, "planning", str(i), 0), answer)
        for i, (prompt, answer) in enumerate(zip(*lengths(subject.case), strict=True))
    ]
    decoding = Decoding(model, requests, (), subject.case.rows, memory=usable_bytes(subject.described))
    for _ in decoding.run():
        pass


def train(subject: Subject, model: Any) -> None:
    mx.set_cache_limit(int(CACHE_SHARE * usable_bytes(subject.described)))
    rows = [
        TokenRow("", i, tokens(subject, prompt), tokens(subject, answer))
        for i, (prompt, answer) in enumerate(zip(*lengths(subject.case), strict=True))
    ]
    plan, settings = subject.student.plan, subject.recipe.train
    chosen = settings.model_dump() | {"validation": None, "seed": 0, "steps": STEPS}
    chosen |= {"row_tokens": plan.row_tokens, "gradient_checkpointing": plan.gradient_checkpointing}
    policy = DecodingPolicy(**subject.recipe.sample.decoding.model_dump())
    with tempfile.TemporaryDirectory() as folder:
        run(model, rows, SimpleNamespace(**chosen), folder, {"benchmark": True}, None, policy)
