"""The text of an answer, with the thinking in it told from the rest, however the model writes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlx_ssd import harmony
from mlx_ssd.prompts import render
from mlx_ssd.sections import Prompt

BEGIN, END = "<think>", "</think>"


def decode(tokenizer: Any, completions: Sequence[Sequence[int]], prompt: Prompt) -> list[str]:
    """The text of each completion, without special tokens; what it thought stands between `<think>` and `</think>`,
    which grading knows. Of harmony these are all channels but the final one. Where the rendering of `prompt` itself
    opens the thinking, as Qwen3-Thinking's does, the opening is put before the completion: one that was cut would
    otherwise show nothing of it, and a program that it weighed would be its answer. What was cut has no end.
    """
    if harmony.CHANNEL in tokenizer.get_added_vocab():
        said = tokenizer.batch_decode(completions, skip_special_tokens=False)
        return [harmony.as_thinking(text) for text in said]
    opened = BEGIN if _opened_by(tokenizer, prompt) else ""
    return [opened + text for text in tokenizer.batch_decode(completions, skip_special_tokens=True)]


def _opened_by(tokenizer: Any, prompt: Prompt) -> bool:
    """Whether every answer begins within its thinking."""
    from mlx_lm.tokenizer_utils import TokenizerWrapper  # it knows by which name a template is told not to think

    if prompt.format == "raw":
        return False
    if not isinstance(tokenizer, TokenizerWrapper):
        tokenizer = TokenizerWrapper(tokenizer)
    asked = tokenizer.decode(render(tokenizer, "x", prompt), skip_special_tokens=False)
    return BEGIN in asked and END not in asked.rpartition(BEGIN)[2]
