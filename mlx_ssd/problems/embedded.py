"""The problems that come with the embedded model: functional tests, three splits without a common prompt."""

from __future__ import annotations

from pathlib import Path

from mlx_ssd import assets


def path(role: str) -> Path:
    """The JSONL file of a split, which is named as the role that it plays."""
    return assets.problems_path(role)
