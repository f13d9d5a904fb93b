"""Answers in harmony, the format of gpt-oss: messages in channels, of which only the final one is for the reader.

    <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>

Without its special tokens such an answer is one text in which nothing tells thinking from answer.
"""

from __future__ import annotations

import re

CHANNEL = "<|channel|>"
FINAL = "final"
_MESSAGE = re.compile(
    r"<\|channel\|>(?P<channel>\w*)(?:(?!<\|(?:channel|message|start|end)\|>).)*<\|message\|>(?P<text>.*?)"
    r"(?P<end><\|(?:end|return|call)\|>|(?=<\|(?:channel|start)\|>)|\Z)",
    re.DOTALL,
)
_SPECIAL = re.compile(r"<\|\w+\|>")


def as_thinking(text: str) -> str:
    """`text`, given with its special tokens, without them: all channels but the final one between `<think>` and
    `</think>`, as other models write their thinking. One that was cut has no end. What stands in no channel is for the
    reader."""
    said = [_SPECIAL.sub("", text.partition(CHANNEL)[0])]
    for message in _MESSAGE.finditer(text):
        last = message.end() == len(text)
        if message["channel"] == FINAL:
            said.append(message["text"] + ("" if last else "\n"))  # a fence begins a line
        else:
            cut = last and not message["end"]
            said.append(f"<think>{message['text']}" + ("" if cut else "</think>\n"))
    return "".join(said)
