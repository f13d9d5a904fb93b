"""What an engine is asked, what it answers, and a completion while it is drawn. No array library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlx_ssd.decoding.draw import Policy
from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.sampling.loops import LoopDetector, LoopStop

Size = tuple[int, int, int]  # of a row: tokens of the prompt, drawn so far, the most that may be drawn


@dataclass(frozen=True)
class Request:
    key: Any  # the caller's name for it, returned with the completion
    prompt_ids: list[int]
    policy: Policy
    random_key: tuple[int, int]  # decoding.rng.sample_key
    max_tokens: int


@dataclass(frozen=True)
class Completed:
    key: Any
    completion_ids: list[int]  # with the stop token, when one was drawn
    finish_reason: str  # "stop", "length" or "loop"
    provenance: Mapping[str, Any] = field(default_factory=dict)  # fields that its record has besides


class Row:
    """A request, and its tokens so far."""

    def __init__(self, request: Request, loops: LoopStop | None):
        self.request = request
        self.tokens: list[int] = []
        watched = loops and request.max_tokens >= loops.min_tokens
        self.loop = LoopDetector(loops) if watched else None

    @property
    def context(self) -> tuple[int, ...]:
        """What must have gone through the model before the row's next step, whose input is `last`."""
        return (*self.request.prompt_ids, *self.tokens)[:-1]

    @property
    def last(self) -> int:
        return self.tokens[-1] if self.tokens else self.request.prompt_ids[-1]

    @property
    def size(self) -> Size:
        return len(self.request.prompt_ids), len(self.tokens), self.request.max_tokens


def not_finite(key: Any) -> WorkFailed:
    """What is said of a completion whose next token has no distribution."""
    return WorkFailed(
        f"the model's output for {key} is not finite: its weights are damaged, or model.dtype is too narrow for it "
        "(try float32)"
    )


def too_large(size: Size, least: float, weights: float, memory: float) -> BadInput:
    """What is said where one completion alone needs more bytes than may be used."""
    prompt, _, limit = size
    return BadInput(
        f"one answer of up to {limit:,} tokens to a prompt of {prompt:,} takes {least / 1e9:.3g} GB "
        f"({weights / 1e9:.3g} GB of it weights), and {memory / 1e9:.3g} GB may be used; "
        "lower max_tokens, raise memory_gb, or take a smaller model"
    )
