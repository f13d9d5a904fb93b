"""Run in processes of their own (tests.faults.Forked): a rank that keeps the journal, and one that works for it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import mlx.core as mx

from mlx_ssd import models, storage
from mlx_ssd.decoding.policy import DecodingPolicy, StagedPolicy
from mlx_ssd.distributed import address, coordinator
from mlx_ssd.distributed.sharing import Sharing
from mlx_ssd.distributed.worker import Settings, work
from mlx_ssd.problems import read_problems
from mlx_ssd.records import Generation
from mlx_ssd.sampling.collect import Target, collect
from mlx_ssd.sections import Model, ProblemSource, Prompt

POLICIES = (DecodingPolicy(1.6, 20, 0.8), StagedPolicy(DecodingPolicy(1.6, 20, 0.8), DecodingPolicy(0.7)))
SECRET = "0123456789abcdef"
PROBLEMS = 20


def targets(folder: Path) -> list[Target]:
    return [Target(folder / f"{number}.jsonl", policy) for number, policy in enumerate(POLICIES)]


def lead(
    folder: Path,
    port: int | None,
    adapter: Path | None = None,
    problems: int = PROBLEMS,
    lost: float = 8.0,
    rows: int = 8,
) -> None:
    """Complete the journals in `folder`, and let workers in at `port` where one is given. With few rows it draws slowly
    enough for a worker to come in time, however busy the machine is."""
    storage.FLUSH_SECONDS = 0
    coordinator.LOST_SECONDS = lost
    source = models.locate(Model())
    model, tokenizer = models.load(source, "float32", adapter)
    measured = collect(
        targets(folder),
        Generation,
        read_problems(ProblemSource(limit=problems), "test"),
        model,
        tokenizer,
        prompt=Prompt(),
        samples_per_problem=2,
        max_tokens=48,
        rows=rows,
        memory_gb=None,
        loops=None,
        seed=0,
        stream="eval",
        revision=source.revision,
        label="test",
        sharing=Sharing(("127.0.0.1", port), SECRET.encode()) if port else None,
    )
    storage.write_json(folder / "measured.json", measured)


def follow(port: int) -> None:
    os.environ[address.SECRET] = SECRET
    work(Settings(("127.0.0.1", port), None, None, None, 20.0, False))


def make_adapter(folder: Path) -> None:
    """One that changes what is drawn."""
    from types import SimpleNamespace

    from mlx_ssd.training import lora

    model, _ = models.load(models.locate(Model()), "float32")
    settings = SimpleNamespace(rank=4, scale=20.0, dropout=0.0, keys="all", experts=True, num_layers=-1, seed=0)
    lora.attach(model, settings)
    mx.random.seed(1)
    weights = {name: 0.1 * mx.random.normal(array.shape) for name, array in lora.adapter_weights(model).items()}
    model.load_weights(list(weights.items()), strict=False)
    lora.write(model, settings, folder)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
