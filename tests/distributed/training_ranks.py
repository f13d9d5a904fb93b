"""Run in processes of their own: one rank of a training of the tiny model, in a ring over loopback."""

from __future__ import annotations

import json
import os
from pathlib import Path

import mlx.core as mx

from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.training import checkpoint
from mlx_ssd.training.loop import train
from mlx_ssd.training.ranks import Group
from mlx_ssd.training.validation import Validation
from tests.training.tiny import Settings, make_rows, tiny_model


def train_rank(
    folder: Path,
    rank: int | None,
    ports: list[int],
    settings: dict[str, Settings],
    stop_at: int = 0,
    slow: bool = False,
) -> None:
    """One training after the other, each in a folder of its name and rank. rank: None for alone. stop_at: rank 1 ends
    without a word after so many steps. slow: to this rank every step seems to take longer than may be lost."""
    if slow:
        checkpoint.SAVE_SECONDS, checkpoint.SAVE_SHARE = 0.0, 0
    ranks = None
    if rank is not None:
        hosts = folder / f"hosts-{rank}.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in ports]))
        os.environ |= {"MLX_RANK": str(rank), "MLX_HOSTFILE": str(hosts)}
        ranks = Group(mx.distributed.init(strict=True, backend="ring"))

    def stop(step: int, **_) -> None:
        if rank == 1 and step == stop_at:
            os._exit(9)

    if rank == 1:  # as where chips round otherwise: whether it is over is rank 0's to say
        Validation.is_over = lambda *_: False
    policy = DecodingPolicy(1.6, 20, 0.8)
    for name, chosen in settings.items():
        train(tiny_model(), make_rows(10), chosen, folder / f"{name}-{rank}", {}, stop, policy, ranks=ranks)
