"""The text of an answer, with the thinking in it told from the rest, however the model writes it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from mlx_ssd import harmony

BEGIN, END = "<think>", "</think>"
ENDING = 8  # tokens of a prompt that surely hold a BEGIN at its end


def decode(tokenizer: Any, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> list[str]:
    """The text of each completion, without special tokens; what it thought stands between `<think>` and `</think>`,
    which grading knows. Of harmony these are all channels but the final one. Where the prompt itself opened the
    thinking, as Qwen3-Thinking's template does, the opening is put before the completion: one that was cut would
    otherwise show nothing of it, and a program that it weighed would be its answer. What was cut has no end.
    """
    if harmony.CHANNEL in tokenizer.get_added_vocab():
        return [harmony.as_thinking(text) for text in tokenizer.batch_decode(completions, skip_special_tokens=False)]

    @cache
    def opening(ending: tuple[int, ...]) -> str:
        (text,) = tokenizer.batch_decode([ending], skip_special_tokens=False)
        return BEGIN if text.rstrip().endswith(BEGIN) else ""

    said = tokenizer.batch_decode(completions, skip_special_tokens=True)
    opened = [opening(tuple(prompt[-ENDING:])) for prompt in prompts]
    for number, ids in enumerate(completions):
        if opened[number]:
            said[number] = BEGIN + _with_end(tokenizer, ids, said[number])
    return said


def _with_end(tokenizer: Any, ids: Sequence[int], text: str) -> str:
    """`text`, of these ids without special tokens, and with the end of its thinking if that is one of them."""
    if END in text or END not in tokenizer.all_special_tokens:
        return text
    end = tokenizer.convert_tokens_to_ids(END)
    if end not in ids:
        return text
    at = list(ids).index(end)
    return END.join(tokenizer.batch_decode([ids[:at], ids[at + 1 :]], skip_special_tokens=True))
