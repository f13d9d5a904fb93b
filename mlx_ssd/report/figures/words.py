"""Names and numbers as a figure writes them.

Names of arms, suites, models and labels come from people and from models. In a drawing they are shortened; what no
XML can hold, and what would turn the text around it, becomes U+FFFD.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WHOLE = 1000  # characters of a name in an alternative text; no real name is as long
_TURNING = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}  # bidirectional classes


def clean(text: str, most: int = WHOLE) -> str:
    """One line of printable text, at most so many characters."""
    found = "".join(map(_printable, " ".join(text[: 4 * most].split())))
    return found if len(found) <= most else shortened(found, most)


def _printable(character: str) -> str:
    kind = unicodedata.category(character)
    bad = kind in ("Cc", "Cs", "Cn") or unicodedata.bidirectional(character) in _TURNING
    return "\N{REPLACEMENT CHARACTER}" if bad else character


def shortened(text: str, most: int) -> str:
    """Long names often differ at their end, so the middle goes."""
    if len(text) <= most:
        return text
    tail = (most - 1) * 2 // 5
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


def short(names: Iterable[str], most: int = 24) -> dict[str, str]:
    """Each name in at most so many characters, no two alike (a number is added to those that would be)."""
    found: dict[str, str] = {}
    for name in names:
        if name in found:
            continue
        label = base = shortened(clean(name), most)
        number = 2
        while label in found.values():
            label = f"{shortened(base, most - len(str(number)) - 1)} {number}"
            number += 1
        found[name] = label
    return found


def slug(text: str) -> str:
    """For file names and ids."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "unnamed"


def finite(*values: Any) -> bool:
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in values)


def interval(of: Mapping[str, Any] | None) -> dict[str, float] | None:
    """{"mean", "low", "high"}, or None where one of them is missing or no number."""
    if not of or not finite(*(of.get(name) for name in ("mean", "low", "high"))):
        return None
    return {name: float(of[name]) for name in ("mean", "low", "high")}


def percent(of: Mapping[str, float]) -> str:
    return f"{100 * of['mean']:.1f} [{100 * of['low']:.1f}, {100 * of['high']:.1f}]"


def points(of: Mapping[str, float]) -> str:
    return f"{100 * of['mean']:+.1f} [{100 * of['low']:+.1f}, {100 * of['high']:+.1f}]"


def number(value: float) -> str:
    """Three digits, without powers of ten for what is not tiny."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) < 1e-4:
        return f"{value:.1e}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def listed(items: Sequence[str]) -> str:
    """a, b and c."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
