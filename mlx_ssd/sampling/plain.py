"""The fallback for models whose state is more than keys and values of every token: mlx-lm's own batch caches.

Windows that rotate, recurrent states and the like know how to merge, drop and join rows; they do it by copies, and
keep every row as long as the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlx_ssd.sampling.prefill import Prefilled


class PlainKV:
    """As `kv.GroupedKV`, on mlx-lm's caches."""

    can_undo = False

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.caches: list[Any] = []

    @property
    def nbytes(self) -> int:
        return sum(cache.nbytes for cache in self.caches)

    def needs_change(self) -> bool:
        return False

    def change(self, leaving: Sequence[Any], joining: Sequence[tuple[Any, Prefilled]]) -> None:
        if leaving:
            gone = set(leaving)
            keep = [place for place, row in enumerate(self.rows) if row not in gone]
            self.rows = [self.rows[place] for place in keep]
            if not keep:
                self.caches = []
            for cache in self.caches:
                cache.filter(keep)
        if joining:
            layers = zip(*(prefilled.caches for _, prefilled in joining), strict=True)
            new = [caches[0].merge(list(caches)) for caches in layers]
            for cache, its in zip(self.caches, new, strict=False):
                cache.extend(its)
            self.caches = self.caches or new
            self.rows = self.rows + [row for row, _ in joining]

    def shrink(self, used: float) -> None:
        """Nothing: there are no slots."""

    def begin_step(self) -> None:
        """Nothing: the caches count by themselves."""

    def keep_step(self) -> None:
        """Nothing."""
