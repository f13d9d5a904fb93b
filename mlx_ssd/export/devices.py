"""Where an export fits: the memory it needs, computed from config.json and the artefact's size. None of it is measured.

    weights + context x layers x key-value heads x head size x 2 (keys and values) x 2 bytes
            + a chunk of the prompt: PREFILL tokens x (3 MLP widths + the vocabulary) x 2 bytes + RUNTIME

Apple publishes neither the memory of its phones nor how much of it an app gets; `os_proc_available_memory()` tells the
app itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_ssd.budget import ModelSize, usable_bytes

CONTEXTS = (2048, 4096, 8192)
PREFILL = 512  # mlx-swift-lm 3.31.4 takes a prompt in steps of so many
RUNTIME = 300e6  # the app, the framework and their buffers: an assumption
# With the entitlement com.apple.developer.kernel.increased-memory-limit; others measured 5 to 6 GB on phones of 8 GB.
PHONE_SHARE = 0.6
PHONES = {  # GB -> models, as taken apart by others
    4: "iPhone 12, 13, SE 3",
    6: "iPhone 12 Pro, 13 Pro, 14, 14 Pro, 15",
    8: "iPhone 15 Pro, 16, 16 Pro, 16e, 17",
    12: "iPhone 17 Pro, Air",
}
MACS = (8, 16, 24, 32, 48, 64, 96, 128)  # GB


@dataclass(frozen=True)
class Need:
    """Bytes at one length of context."""

    context: int
    weights: float
    cache: float
    total: float

    @property
    def phone(self) -> int | None:
        """GB of the smallest phone; None where there is none."""
        return next((gb for gb in PHONES if self.total <= PHONE_SHARE * gb * 1e9), None)

    @property
    def mac(self) -> int | None:
        return next((gb for gb in MACS if self.total <= _usable(gb)), None)


def _usable(gigabytes: int) -> int:
    return usable_bytes({"chip": "Apple", "memory_bytes": gigabytes * 2**30})


def needs(config: Mapping[str, Any], weights: float, longest: int, fixed: bool = False) -> list[Need]:
    """At each of CONTEXTS that the export takes, or at `longest` where that is shorter than all of them.

    weights: bytes. longest: tokens. fixed: the cache is as large as it can get from the beginning.
    """
    model = ModelSize.of(config, "float16")  # which caches have, whatever the weights
    contexts: Sequence[int] = [context for context in CONTEXTS if context <= longest]
    if fixed or not contexts:
        contexts = [longest]
    chunk = 2 * min(PREFILL, longest) * (3 * model.mlp + model.vocabulary)
    found = []
    for context in contexts:
        cache = context * model.kv_bytes + model.window_bytes
        found.append(Need(context, weights, cache, weights + cache + chunk + RUNTIME))
    return found


def table(found: Sequence[Need]) -> list[str]:
    """Markdown lines."""
    lines = ["| context | weights | cache | in all | iPhone from | Mac from |", "|---|---|---|---|---|---|"]
    for need in found:
        sizes = (_readable(size) for size in (need.weights, need.cache, need.total))
        phone = f"{need.phone} GB ({PHONES[need.phone]})" if need.phone else "none"
        mac = f"{need.mac} GB" if need.mac else "none"
        lines.append(f"| {need.context:,} | {' | '.join(sizes)} | {phone} | {mac} |")
    return lines


def _readable(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
