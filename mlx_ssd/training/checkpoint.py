"""Checkpoints from which training goes on bit for bit.

    DIRECTORY/step-00000040/adapter.safetensors    the trained arrays
                            optimizer.safetensors  all of the optimizer's state
                            best.safetensors       those of the best student so far, if it is an earlier one
                            state.json             step, log_bytes, best, identity, sha256 of each file

The place in the data is a function of the step (batches.BatchPlan) and dropout is seeded by it, so the step
is the whole cursor. (mlx-lm resumes the adapter alone.)
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_ssd.errors import BadInput
from mlx_ssd.storage import atomic_directory
from mlx_ssd.training.arrays import write_arrays
from mlx_ssd.training.validation import Best

KEPT = 2
SAVE_SECONDS = 300.0  # of training that may be lost, besides the step that is being made
SAVE_SHARE = 20  # a checkpoint may take that part of the time: those of every weight of a large model take long


@dataclass(frozen=True)
class Checkpoint:
    step: int  # optimizer steps done
    log_bytes: int  # length of the training log when `step` was done
    adapter: dict[str, mx.array]
    optimizer: dict[str, mx.array]  # the flattened state
    best: Best | None = None  # where there is validation
    skipped_in_a_row: int = 0


class Pace:
    """When a checkpoint is due by the clock, from the making of this on."""

    def __init__(self) -> None:
        self._since, self._took = time.monotonic(), 0.0

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self._since >= max(SAVE_SECONDS, SAVE_SHARE * self._took)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around every saving, whatever it was due by."""
        begun = time.monotonic()
        yield
        self._since = time.monotonic()
        self._took = self._since - begun


def save(directory: Path, checkpoint: Checkpoint, identity: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all, then drop all but the last `KEPT`.

    identity: all that the result depends on, as JSON takes it: settings, hashes of rows and model.
    """
    best = checkpoint.best
    with atomic_directory(_folder(directory, checkpoint.step)) as partial:
        arrays = {"adapter.safetensors": checkpoint.adapter, "optimizer.safetensors": checkpoint.optimizer}
        if best and best.weights and best.step < checkpoint.step:
            arrays["best.safetensors"] = best.weights
        for name, values in arrays.items():
            write_arrays(partial / name, values)
        state = {
            "step": checkpoint.step,
            "log_bytes": checkpoint.log_bytes,
            "skipped_in_a_row": checkpoint.skipped_in_a_row,
            "best": {"step": best.step, "loss": best.loss, "worse_since": best.worse_since} if best else None,
            "identity": identity,
            "sha256": {name: _sha256(partial / name) for name in arrays},
        }
        (partial / "state.json").write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    prune(directory, checkpoint.step)


def prune(directory: Path, step: int) -> None:
    """Drop all but the last `KEPT` checkpoints up to `step`, and whatever a kill has left behind.

    A later one is damaged, or `load_latest` would have chosen it: it must not push out a good one.
    """
    kept = [folder for folder in _folders(directory) if folder <= _folder(directory, step)][-KEPT:]
    for folder in {*_folders(directory), *directory.glob(".step-*")} - set(kept):
        shutil.rmtree(folder)


def load_latest(directory: Path, identity: Mapping[str, Any]) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint, or None, and a warning for each damaged one that was passed over.

    Raises BadInput where a checkpoint is of another training than `identity`, naming what differs.
    """
    warnings = []
    for folder in reversed(_folders(directory)):
        try:
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            if others := list(_differences(state["identity"], json.loads(json.dumps(identity)))):
                raise BadInput(
                    f"the checkpoint {folder} is of another training ({', '.join(others)}): remove {directory} to "
                    "train afresh, or go back to what it was trained with"
                )
            arrays = {name: _load_arrays(folder / name, digest) for name, digest in state["sha256"].items()}
            adapter, best = arrays["adapter.safetensors"], None
            if state["best"]:
                best = Best(**state["best"], weights=arrays.get("best.safetensors", adapter))
            optimizer, skipped = arrays["optimizer.safetensors"], state["skipped_in_a_row"]
            return Checkpoint(state["step"], state["log_bytes"], adapter, optimizer, best, skipped), warnings
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            warnings.append(f"the checkpoint {folder} is damaged and was passed over ({error})")
    return None, warnings


def _differences(there: Any, here: Any, path: str = "") -> Iterator[str]:
    """What differs between two JSON values, as 'train.rank is 8 there and 16 here'. A setting that stands there alone
    is passed over: an earlier version counted it, and this one does not."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in here if path == "train" else {**there, **here}:
            yield from _differences(there.get(key), here.get(key), f"{path}.{key}" if path else key)
    elif there != here:
        yield f"{path} is {there} there and {here} here"


def _folder(directory: Path, step: int) -> Path:
    return directory / f"step-{step:08d}"


def _folders(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-*"))


def _load_arrays(path: Path, sha256: str) -> dict[str, mx.array]:
    if _sha256(path) != sha256:
        raise ValueError(f"{path.name} does not have the sha256 noted in state.json")
    arrays = mx.load(str(path))
    mx.eval(arrays)  # mlx reads lazily, and the file may be rotated away
    return arrays


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
