"""Arrays on disk."""

from pathlib import Path

import mlx.core as mx


def write_arrays(path: Path, arrays: dict[str, mx.array], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, the same bytes for the same arrays."""
    # Sorted: mlx orders the file as it likes, by way of the order given. A file rather than its path: from a
    # path, mlx reports a full disk as a RuntimeError of its own, from a file as an OSError.
    with open(path, "wb") as file:
        mx.save_safetensors(file, dict(sorted(arrays.items())), metadata or {})
