"""Which library draws: MLX, or PyTorch on a machine with CUDA. An engine loads a model and decodes requests.

By rule 3 (docs/method.md) their samples are equal but where a draw stands on a boundary. So an engine is a matter of
speed and no part of what a journal is made of: one may go on where another stopped. A server is the exception: it draws
for itself, and its samples say so.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from mlx_ssd.errors import BadInput
from mlx_ssd.sampling.requests import Completed
from mlx_ssd.sections import Server

MLX, TORCH, SERVER = "mlx", "torch", "server"


class Decoding(Protocol):
    @property
    def expected_peak(self) -> float: ...
    def run(self, on_tokens: Callable[[int], None] | None = None) -> Iterator[Completed]: ...


@dataclass(frozen=True)
class Engine:
    name: str  # with the device that it works on, for the manifest
    load: Callable[..., tuple[Any, Any]]  # (source, dtype) -> (model, tokenizer), as models.load
    decoding: Callable[..., Decoding]  # made as sampling.engine.Decoding
    working_set: Callable[[], int]  # bytes that weights, caches and working space may take together


class SharedDecoding(Decoding, Protocol):
    counts: dict[str, int]  # completions that others drew, by their names


class Sharing(Protocol):
    """Others draw too (`mlx_ssd.distributed`): made as Engine.decoding, and `keep` is given what they have drawn."""

    def decoding(
        self, engine: Engine, *arguments: Any, label: str, keep: Callable[[Completed], None], **options: Any
    ) -> SharedDecoding: ...


def check_engine(name: str) -> None:
    """Raises BadInput where the engine's library is not installed. Imports nothing heavy."""
    if name == TORCH and importlib.util.find_spec("torch") is None:
        raise BadInput("sample.engine torch needs PyTorch: pip install -e '.[parity]', or set sample.engine to mlx")


def engine_of(name: str, server: Server | None = None) -> Engine:
    """`server` for the engine of that name. Raises BadInput as `check_engine`."""
    check_engine(name)
    if name == SERVER:
        from mlx_ssd.machine.working_set import working_set
        from mlx_ssd.sampling.server import engine as served

        assert server is not None
        return Engine(f"server {server.url}", partial(served.load, server), served.Decoding, working_set)
    if name == TORCH:
        from mlx_ssd.sampling import torch_engine as torch

        return Engine(f"torch on {torch.device()}", torch.load, torch.Decoding, torch.working_set)
    from mlx_ssd import models
    from mlx_ssd.machine.working_set import working_set
    from mlx_ssd.sampling import engine

    return Engine(MLX, models.load, engine.Decoding, working_set)
