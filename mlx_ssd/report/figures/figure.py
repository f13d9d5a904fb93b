"""What a figure is: a drawing with the words that go with it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """`svg` goes into a page as it is: `<svg …>…</svg>`, text and axes in currentColor, ids that open with `name`.
    `caption`: what is drawn, what its intervals are, from which file; `alt`: the same with the numbers, for readers
    who do not see it. All of them are plain text, not HTML."""

    name: str  # of the file too: a-z, 0-9 and hyphens
    title: str
    caption: str
    alt: str
    svg: str
