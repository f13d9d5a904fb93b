"""Answers in harmony, the format of gpt-oss: messages in channels, of which only the final one is for the reader.

    <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>

Without its special tokens such an answer is one text in which nothing tells thinking from answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

CHANNEL = "<|channel|>"
FINAL = "final"
_MESSAGE = re.compile(
    r"<\|channel\|>(?P<channel>\w*)[^<]*<\|message\|>(?P<text>.*?)"
    r"(?P<end><\|(?:end|return|call)\|>|(?=<\|channel\|>)|\Z)",
    re.DOTALL,
)
_SPECIAL = re.compile(r"<\|\w+\|>")


def decode(tokenizer: Any, completions: Sequence[Sequence[int]]) -> list[str]:
    """The text of each completion, without special tokens. Of harmony all channels but the final one stand between
    `<think>` and `</think>`, as other models write their thinking: grading knows these. One that was cut has no end.
    """
    if CHANNEL not in tokenizer.get_added_vocab():
        return tokenizer.batch_decode(completions, skip_special_tokens=True)
    return [as_thinking(text) for text in tokenizer.batch_decode(completions, skip_special_tokens=False)]


def as_thinking(text: str) -> str:
    """`text` with its special tokens, in the form that `decode` gives. What stands in no channel is for the reader."""
    said = [_SPECIAL.sub("", text.partition(CHANNEL)[0])]
    for message in _MESSAGE.finditer(text):
        if message["channel"] == FINAL:
            said.append(message["text"])
        else:
            cut = message.end() == len(text) and not message["end"]
            said.append(f"<think>{message['text']}" + ("" if cut else "</think>\n"))
    return "".join(said)
