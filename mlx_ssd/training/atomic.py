"""Folders that are there whole or not at all, whenever the process or the machine dies."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlx.core as mx


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """Yield a folder beside `target` to write files into; on leaving, it takes `target`'s place.

    Nothing is cleaned up when the body fails: a kill could not do so either, and the next call does.
    """
    partial = target.with_name(f".{target.name}.partial")
    retired = target.with_name(f".{target.name}.retired")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(retired, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    for file in sorted(partial.iterdir()):
        _fsync(file)
    _fsync(partial)
    if target.exists():
        # A folder cannot be renamed over a full one; in between there is none, but never half of one.
        os.rename(target, retired)
    os.rename(partial, target)
    _fsync(target.parent)
    shutil.rmtree(retired, ignore_errors=True)


def write_arrays(path: Path, arrays: dict[str, mx.array]) -> None:
    """Write a safetensors file, the same bytes for the same arrays."""
    # Sorted: mlx orders the file as it likes, by way of the order given. A file rather than its path: from a
    # path, mlx reports a full disk as a RuntimeError of its own, from a file as an OSError.
    with open(path, "wb") as file:
        mx.save_safetensors(file, dict(sorted(arrays.items())))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
