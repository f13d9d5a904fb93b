"""Which library draws: MLX, or PyTorch on a machine with CUDA. An engine loads a model and decodes requests.

By rule 3 (docs/method.md) their samples are equal but where a draw stands on a boundary. So an engine is a matter of
speed and no part of what a journal is made of: one may go on where another stopped.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from mlx_ssd.errors import BadInput
from mlx_ssd.sampling.requests import Completed

MLX, TORCH = "mlx", "torch"


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


def check_engine(name: str) -> None:
    """Raises BadInput where the engine's library is not installed. Imports nothing heavy."""
    if name == TORCH and importlib.util.find_spec("torch") is None:
        raise BadInput("sample.engine torch needs PyTorch: pip install -e '.[parity]', or set sample.engine to mlx")


def engine_of(name: str) -> Engine:
    """Raises BadInput as `check_engine`."""
    check_engine(name)
    if name == TORCH:
        from mlx_ssd.sampling import torch_engine as torch

        return Engine(f"torch on {torch.device()}", torch.load, torch.Decoding, torch.working_set)
    from mlx_ssd import models
    from mlx_ssd.machine.working_set import working_set
    from mlx_ssd.sampling import engine

    return Engine(MLX, models.load, engine.Decoding, working_set)
