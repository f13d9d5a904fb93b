"""What a model or a user wrote, made visible before it is escaped.

Characters that have no sight of their own, or change how others are shown, are written as their number, ⟨U+202E⟩: a
reader sees that they are there, and they do nothing. Escaping for HTML is the templates' work.
"""

from __future__ import annotations

import json
import re
from typing import Any

MOST = 6000  # characters of one text that are shown; a line of a megabyte would make the page as long

# Controls but tab and newline, soft hyphen, marks of direction, zero width, U+2028/9, variation and tag characters,
# fillers, halves of surrogate pairs, and what is no character.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# As parts of a <script> these could end it, or open a comment in it; as JSON they mean the same.
_OF_SCRIPTS = {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def visible(text: str) -> str:
    return _UNSEEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def shortened(text: str, most: int = MOST) -> str:
    """The beginning, and how much was left out; the whole where it is short enough."""
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most:,} more characters are left out here)"


def script_json(value: Any) -> str:
    """JSON that can stand inside <script type="application/json">; strings in `value` are to be visible ones."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return re.sub("[<>&\u2028\u2029]", lambda match: _OF_SCRIPTS[match[0]], text)
