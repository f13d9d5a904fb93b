"""The trainers that are compared: each takes rows, trains LoRA adapters on all of them once, and says what that took.

Counted are training steps alone, no loading, attaching, saving or making of batches; for all the same rank, scale and
layers. Every model comes back as it was.

mlx-lm's step is compiled, and traced anew for every shape of a batch. A long run pays that once a shape, a short one
nearly every time: what the tracing takes is not counted, which is in mlx-lm's favour. Ours compiles nothing, and builds
its graph at every step, which is counted.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import Adam
from mlx_lm.tuner import trainer as mlx_lm_trainer
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.datasets import CacheDataset
from mlx_lm.tuner.utils import linear_to_lora_layers

from benchmarks.sampling.workload import POLICY, SEED
from benchmarks.turns import clocks
from mlx_ssd.sections import Training
from mlx_ssd.training import loop
from mlx_ssd.training.rows import length

ROWS_PER_STEP = 16
RANK, SCALE, NUM_LAYERS = 16, 2.0, -1
MAX_LENGTH = 2048
NEVER = 10**9

Rows = Sequence[Any]


@dataclass
class Work:
    """What a trainer did."""

    took: np.ndarray = field(default_factory=lambda: np.zeros(2))  # seconds, and of processor time
    traced: np.ndarray = field(default_factory=lambda: np.zeros(2))  # of tracing, not counted in `took`
    completion_tokens: int = 0
    positions: int = 0  # computed: batch size times length, all batches together


Trainer = Callable[[nn.Module, Rows], Work]


@dataclass(frozen=True)
class Ours:
    """mlx_ssd.training.loop.train, with everything but `row_tokens` and `targets` as recipes have it."""

    row_tokens: int
    targets: str = "tokens"

    def __call__(self, model: nn.Module, rows: Rows) -> Work:
        chosen = Training(
            rank=RANK,
            scale=SCALE,
            num_layers=NUM_LAYERS,
            rows_per_step=ROWS_PER_STEP,
            row_tokens=self.row_tokens,
            targets=self.targets,
            gradient_checkpointing=False,
            max_length=MAX_LENGTH,
            checkpoint_every_steps=NEVER,
        )
        work, step_gradient = Work(), loop.step_gradient
        started = clocks()

        def gradient(model: nn.Module, head: Any, batches: Any, *others: Any) -> Any:
            nonlocal started
            started = clocks()
            work.positions += sum(batch.tokens.size for batch in batches)
            return step_gradient(model, head, batches, *others)

        def done(**entry: Any) -> None:
            work.took += clocks() - started
            work.completion_tokens += entry["completion_tokens"]

        settings = SimpleNamespace(**chosen.model_dump(), seed=SEED)
        with (
            own_layers(model),
            tempfile.TemporaryDirectory() as folder,
            patch.object(loop, "step_gradient", gradient),
            patch.object(loop, "save", lambda *_: None),  # the last step's checkpoint
        ):
            loop.train(model, rows, settings, folder, {}, done, POLICY)
        return work


@dataclass(frozen=True)
class MlxLm:
    """mlx_lm.tuner.trainer.train, called as `mlx_lm.lora --mask-prompt` calls it, without validation.

    sort: whether the rows are sorted by length beforehand. Its own sort does nothing: it goes by len() of a row of
    the file, a dict of two entries, so that batches are of neighbours in the file.
    accumulate: so many batches that an optimizer step sees ROWS_PER_STEP rows; without it every batch is a step.
    keep_cache: keep freed memory from step to step, which its command line cannot ask for.
    """

    batch_size: int = 4
    sort: bool = False
    accumulate: bool = False
    keep_cache: bool = False

    def __call__(self, model: nn.Module, rows: Rows) -> Work:
        arguments = mlx_lm_trainer.TrainingArgs(
            batch_size=self.batch_size,
            iters=len(rows) // self.batch_size,
            steps_per_report=1,
            steps_per_save=NEVER,
            max_seq_length=MAX_LENGTH,
            grad_accumulation_steps=max(ROWS_PER_STEP // self.batch_size, 1) if self.accumulate else 1,
            clear_cache_threshold=NEVER**2 if self.keep_cache else 0,
        )
        work, compiling = Work(), mx.compile
        started = clocks()

        def batches(*positional: Any, **named: Any) -> Iterator[tuple[mx.array, mx.array]]:
            nonlocal started
            for batch, bounds in mlx_lm_trainer.iterate_batches(*positional, **named):
                work.positions += batch.shape[0] * (batch.shape[1] - 1)
                work.completion_tokens += (bounds[:, 1] - bounds[:, 0]).sum().item()
                started = clocks()
                yield batch, bounds

        class Clock(TrainingCallback):
            def on_train_loss_report(self, report: dict[str, Any]) -> None:
                # Its own clock, which stops before it prints; of processor time there is none.
                work.took += (1 / report["iterations_per_second"], (clocks() - started)[1])

        def compiled(step: Callable[..., Any], **named: Any) -> Callable[..., Any]:
            """Time the calls that trace: nothing is evaluated in them."""
            tracing = False

            def traced(*arrays: Any) -> Any:
                nonlocal tracing
                tracing = True
                return step(*arrays)

            compiled_step = compiling(traced, **named)

            def call(*arrays: Any) -> Any:
                nonlocal tracing
                tracing, called = False, clocks()
                result = compiled_step(*arrays)
                if tracing:
                    work.traced += clocks() - called
                return result

            return call

        model.freeze()
        np.random.seed(SEED)  # the order of the batches
        mx.random.seed(SEED)
        with (
            own_layers(model),
            tempfile.TemporaryDirectory() as folder,
            contextlib.redirect_stdout(io.StringIO()),
            patch.object(mx, "compile", compiled),
        ):
            linear_to_lora_layers(model, NUM_LAYERS, {"rank": RANK, "scale": SCALE, "dropout": 0.0})
            arguments.adapter_file = str(Path(folder) / "adapters.safetensors")
            mlx_lm_trainer.train(
                model,
                Adam(learning_rate=1e-5),
                CacheDataset(File(sorted(rows, key=length) if self.sort else rows)),
                args=arguments,
                iterate_batches=batches,
                training_callback=Clock(),
            )
        work.took -= work.traced
        return work


class File:
    """Rows as mlx-lm's CompletionsDataset holds them, tokens in place of text."""

    def __init__(self, rows: Rows):
        self._rows = [{"prompt": row.prompt_ids, "completion": row.completion_ids} for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self._rows[index]

    def process(self, row: dict[str, list[int]]) -> tuple[list[int], int]:
        """The tokens, and where the completion begins."""
        return row["prompt"] + row["completion"], len(row["prompt"])


@contextlib.contextmanager
def own_layers(model: nn.Module) -> Iterator[None]:
    """Afterwards the model has the layers of before, without adapters."""
    layers = model.leaf_modules()
    try:
        yield
    finally:
        model.update_modules(layers)
