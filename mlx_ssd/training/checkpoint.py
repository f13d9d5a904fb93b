"""Checkpoints from which training goes on bit for bit.

    DIRECTORY/step-00000040/adapter.safetensors    the adapter's arrays
                            optimizer.safetensors  all of the optimizer's state
                            state.json             step, log_bytes, fingerprint, sha256 of both

The place in the data is a function of the step (batches.BatchPlan) and dropout is seeded by it, so the step
is the whole cursor. (mlx-lm resumes the adapter alone.)
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from mlx_ssd.errors import BadInput
from mlx_ssd.storage import atomic_directory
from mlx_ssd.training.arrays import write_arrays

KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    step: int  # optimizer steps done
    log_bytes: int  # length of the training log when `step` was done
    adapter: dict[str, mx.array]
    optimizer: dict[str, mx.array]  # the flattened state


def save(directory: Path, checkpoint: Checkpoint, fingerprint: str) -> None:
    """Write a checkpoint, whole or not at all, then drop all but the last `KEPT`."""
    with atomic_directory(_folder(directory, checkpoint.step)) as partial:
        arrays = {"adapter.safetensors": checkpoint.adapter, "optimizer.safetensors": checkpoint.optimizer}
        for name, values in arrays.items():
            write_arrays(partial / name, values)
        state = {
            "step": checkpoint.step,
            "log_bytes": checkpoint.log_bytes,
            "fingerprint": fingerprint,
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


def load_latest(directory: Path, fingerprint: str) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint, or None, and a warning for each damaged one that was passed over.

    Raises BadInput where a checkpoint belongs to another training (recipe, rows or model) than `fingerprint`.
    """
    warnings = []
    for folder in reversed(_folders(directory)):
        try:
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            if state["fingerprint"] != fingerprint:
                raise BadInput(
                    f"the checkpoint {folder} is of another training (fingerprint {state['fingerprint']}, "
                    f"this one's {fingerprint}): remove {directory} to train afresh, or restore its recipe"
                )
            adapter, optimizer = (
                _load_arrays(folder / name, state["sha256"][name])
                for name in ("adapter.safetensors", "optimizer.safetensors")
            )
            return Checkpoint(state["step"], state["log_bytes"], adapter, optimizer), warnings
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.append(f"the checkpoint {folder} is damaged and was passed over ({error})")
    return None, warnings


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
