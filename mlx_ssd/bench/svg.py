"""Plots of a few points in SVG, written by hand: axes from zero or around the data, marks, intervals, labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 36, 52
MARK = 9  # from one mark to the next, so that both are seen
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")  # Tol's bright


@dataclass(frozen=True)
class Point:
    label: str
    x: float
    y: float
    low: float | None = None  # of y
    high: float | None = None


def scatter(points: Sequence[Point], title: str, x: str, y: str) -> str:
    """A panel (an SVG group) of points with their intervals, x from zero. Marks that would stand on one another are
    drawn side by side; `page` says which is which."""
    xs = ticks(0, max(point.x for point in points))
    ys = ticks(*(f(v for p in points for v in (p.y, p.low, p.high) if v is not None) for f in (min, max)))
    parts = [_axes(title, x, y, xs, ys)]
    for number, (point, at) in enumerate(zip(points, _apart([_across(point.x, xs) for point in points]), strict=True)):
        colour, up = COLOURS[number % len(COLOURS)], _up(point.y, ys)
        if point.low is not None and point.high is not None:
            parts.append(_line(at, _up(point.low, ys), at, _up(point.high, ys), colour, 2))
        parts.append(f'<circle cx="{at:.1f}" cy="{up:.1f}" r="5" fill="{colour}"/>')
    return "".join(parts)


def bars(values: Sequence[Point], title: str, x: str) -> str:
    """A panel of horizontal bars from zero, one a label; low and high are of the bar's length, which is y."""
    xs = ticks(0, max(v.high or v.y for v in values))
    height = (HEIGHT - TOP - BOTTOM) / len(values)
    parts = [_axes(title, x, "", xs, ())]
    for number, value in enumerate(values):
        top, end = TOP + number * height, _across(value.y, xs)
        colour = COLOURS[number % len(COLOURS)]
        size = f'width="{end - LEFT:.1f}" height="{height * 0.4:.1f}"'
        parts.append(f'<rect x="{LEFT}" y="{top + height * 0.5:.1f}" {size} fill="{colour}" fill-opacity="0.7"/>')
        if value.low is not None and value.high is not None:
            middle = top + height * 0.7
            parts.append(_line(_across(max(value.low, 0), xs), middle, _across(value.high, xs), middle, "#222", 1.5))
        parts.append(_text(LEFT + 4, top + height * 0.5 - 4, value.label))
    return "".join(parts)


def page(panels: Sequence[str], labels: Sequence[str] = ()) -> str:
    """Panels side by side, and right of them which colour is whose."""
    legend = 22 + 7 * max(map(len, labels)) if labels else 0
    width = WIDTH * len(panels) + legend
    groups = "".join(f'<g transform="translate({WIDTH * i} 0)">{panel}</g>' for i, panel in enumerate(panels))
    size = f'width="{width}" height="{HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect {size} fill="white"/>{groups}{_legend(labels, WIDTH * len(panels))}</svg>\n'
    )


def ticks(low: float, high: float) -> tuple[float, ...]:
    """Four to nine round numbers that hold low and high between them."""
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / 5))
    step = next(m * power for m in (1, 2, 5, 10) if span / (m * power) <= 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(round(i * step, 12) for i in range(first, max(last, first + 1) + 1))


def _across(value: float, xs: Sequence[float]) -> float:
    return LEFT + (value - xs[0]) / (xs[-1] - xs[0]) * (WIDTH - LEFT - RIGHT)


def _up(value: float, ys: Sequence[float]) -> float:
    return HEIGHT - BOTTOM - (value - ys[0]) / (ys[-1] - ys[0]) * (HEIGHT - TOP - BOTTOM)


def _apart(places: Sequence[float]) -> list[float]:
    """Marks that would touch stand in a row around the middle of where they belong."""
    rows: list[list[int]] = []

    def middle(row: list[int]) -> float:
        return sum(places[i] for i in row) / len(row)

    for number in sorted(range(len(places)), key=lambda i: places[i]):
        rows.append([number])
        while len(rows) > 1 and middle(rows[-1]) - middle(rows[-2]) < MARK * (len(rows[-1]) + len(rows[-2])) / 2:
            rows[-2:] = [rows[-2] + rows[-1]]
    found = list(places)
    for row in rows:
        for at, number in enumerate(row):
            found[number] = middle(row) + (at - (len(row) - 1) / 2) * MARK
    return found


def _legend(labels: Sequence[str], x: float) -> str:
    parts = []
    for number, label in enumerate(labels):
        y = TOP + 12 + 18 * number
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{COLOURS[number % len(COLOURS)]}"/>')
        parts.append(_text(x + 10, y, label))
    return "".join(parts)


def _axes(title: str, x: str, y: str, xs: Sequence[float], ys: Sequence[float]) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [_text(LEFT, 20, title, weight="bold"), _text((LEFT + right) / 2, HEIGHT - 14, x, "middle")]
    for value in xs:
        at = _across(value, xs)
        parts += [_line(at, TOP, at, bottom, "#ddd"), _text(at, bottom + 16, f"{value:g}", "middle")]
    for value in ys:
        at = _up(value, ys)
        parts += [_line(LEFT, at, right, at, "#ddd"), _text(LEFT - 6, at + 4, f"{value:g}", "end")]
    middle = (TOP + bottom) / 2
    turned = f'<text transform="translate(16 {middle:.1f}) rotate(-90)" text-anchor="middle">{escape(y)}</text>'
    return "".join([*parts, turned if y else "", _line(LEFT, bottom, right, bottom), _line(LEFT, TOP, LEFT, bottom)])


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = "#444", width: float = 1) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width:g}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "normal") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-weight="{weight}">{escape(text)}</text>'
