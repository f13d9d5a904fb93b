"""What several figures are drawn with: rows of marks or bars with their words above, and the legend.

A row's words stand above its mark, not beside it, so that long names leave the drawing its width. Texts are drawn as
they are given: shorten them first (words.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlx_ssd.report.figures.style import FAINT, INK, SMALL, WIDTH, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Sheet

ROW = 36  # pixels of height that a row takes
AROUND = 62  # pixels of a panel's height for its title, its axis and the axis' name
BAR = 0.4  # of a row's height
DOWN = 0.14  # of a row's height: from its middle to its mark, below the words
LETTER = 6.2  # pixels of width that a legend's letter takes, about


@dataclass(frozen=True)
class Row:
    """A value with its interval. `gid` finds it again in the drawing."""

    words: str
    value: float
    look: Look
    gid: str
    low: float | None = None
    high: float | None = None
    filled: bool = True


@dataclass(frozen=True)
class Stack:
    """A bar of parts, each (value, how the part is drawn)."""

    words: str
    parts: Sequence[tuple[float, dict[str, Any]]]
    gid: str


@dataclass
class Legend:
    """What is whose. Drawn above everything, in as many columns as fit."""

    entries: list[tuple[Any, str]] = field(default_factory=list)

    def line(self, look: Look, label: str, marker: bool = True, **changes: Any) -> None:
        from matplotlib.lines import Line2D

        of = {"color": look.colour, "linestyle": look.dash, "marker": look.marker if marker else "", **changes}
        self.entries.append((Line2D([], [], **of), label))

    def bar(self, label: str, **drawn: Any) -> None:
        from matplotlib.patches import Patch

        self.entries.append((Patch(**drawn), label))

    @property
    def columns(self) -> int:
        longest = max(len(label) for _, label in self.entries)
        return max(1, min(len(self.entries), int((WIDTH - 20) / (LETTER * longest + 52))))

    @property
    def height(self) -> float:
        """Pixels."""
        return 8 + 17 * -(-len(self.entries) // self.columns) if self.entries else 0

    def draw(self, sheet: Sheet) -> None:
        if not self.entries:
            return
        handles, labels = zip(*self.entries, strict=True)
        # matplotlib leaves out labels that begin with an underscore: the real ones are put in afterwards.
        box = sheet.legend(handles, ["x"] * len(labels), loc="outside upper left", ncols=self.columns)
        for text, label in zip(box.get_texts(), labels, strict=True):
            text.set_text(label)


def marks(ax: Axes, rows: Sequence[Row], name: str, zero: bool = False) -> None:
    """A mark a row with its interval. `zero`: the line that the values are read against."""
    ends = [v for row in rows for v in (row.value, row.low, row.high) if v is not None] + [0.0] * zero
    ticks = _rows(ax, rows, min(ends), max(ends), name)
    for place, row in enumerate(rows):
        _reference(ax, ticks, place, zero)
        if row.low is not None and row.high is not None:
            ax.hlines(place + DOWN, row.low, row.high, color=row.look.colour, linewidth=2.2, gid=f"{row.gid}.interval")
        ax.plot(
            [row.value], [place + DOWN], linestyle="", marker=row.look.marker, markersize=7, color=row.look.colour,
            markerfacecolor=row.look.colour if row.filled else "none", gid=row.gid, clip_on=False,
        )  # fmt: skip


def bars(ax: Axes, rows: Sequence[Row], name: str) -> None:
    """Bars from zero, a row each, with their intervals."""
    ends = [v for row in rows for v in (row.value, row.high) if v is not None]
    ticks = _rows(ax, rows, 0.0, max(ends), name)
    for place, row in enumerate(rows):
        _reference(ax, ticks, place, False)
        (bar,) = ax.barh([place + DOWN], [row.value], height=BAR, **row.look.bar())
        bar.set_gid(row.gid)
        if row.low is not None and row.high is not None:
            ax.hlines(place + DOWN, max(row.low, 0), row.high, color=INK, linewidth=1.6, gid=f"{row.gid}.interval")


def stacks(ax: Axes, rows: Sequence[Stack], name: str, longest: float | None = None) -> None:
    """Bars of parts, one after the other from zero."""
    end = max(sum(value for value, _ in row.parts) for row in rows) if longest is None else longest
    ticks = _rows(ax, rows, 0.0, end, name)
    for place, row in enumerate(rows):
        _reference(ax, ticks, place, False)
        left = 0.0
        for number, (value, drawn) in enumerate(row.parts):
            (bar,) = ax.barh([place + DOWN], [value], left=left, height=BAR, edgecolor=INK, linewidth=0.6, **drawn)
            bar.set_gid(f"{row.gid}.{number}")
            left += value


def height_of(panels: Sequence[Sequence[Any]], legend: Legend | None = None) -> float:
    """Pixels that panels of so many rows take, one above the other."""
    return sum(AROUND + ROW * len(rows) for rows in panels) + (legend.height if legend else 0)


def stacked_axes(sheet: Sheet, panels: Sequence[Sequence[Any]]) -> list[Axes]:
    """Axes one above the other, a row everywhere as high."""
    found = sheet.subplots(len(panels), 1, squeeze=False, height_ratios=[len(rows) + 0.2 for rows in panels])
    return list(found[:, 0])


def _rows(ax: Axes, rows: Sequence[Row | Stack], low: float, high: float, name: str) -> list[float]:
    """Set the axes up and write each row's words; the ticks."""
    from matplotlib.ticker import MaxNLocator

    span = (high - low) or abs(high) or 1.0
    left, right = low - 0.04 * span * (low != 0), high + 0.04 * span
    ticks = [float(v) for v in MaxNLocator(6).tick_values(left, right) if left <= v <= right]
    ax.set_xlim(left, right)
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_ylim(len(rows) - 0.55, -0.6)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.grid(False)
    ax.set_xlabel(name)
    for place, row in enumerate(rows):
        text = ax.text(0, place - 0.34, row.words, transform=ax.get_yaxis_transform(), fontsize=SMALL, va="center")
        text.set_in_layout(False)  # a long text must not make the drawing narrow
    return ticks


def _reference(ax: Axes, ticks: Sequence[float], place: int, zero: bool) -> None:
    """The grid beside a row's mark, not through the words above it."""
    ax.vlines(ticks, place + DOWN - 0.22, place + DOWN + 0.22, color=INK, alpha=FAINT, linewidth=0.8, zorder=0)
    if zero:
        ax.vlines([0.0], place + DOWN - 0.24, place + DOWN + 0.24, color=INK, linewidth=1.0, zorder=0)


def apart(places: Sequence[float], gap: float) -> list[float]:
    """Marks that would touch stand in a row around the middle of where they belong."""
    rows: list[list[int]] = []

    def middle(row: list[int]) -> float:
        return sum(places[i] for i in row) / len(row)

    for number in sorted(range(len(places)), key=lambda i: places[i]):
        rows.append([number])
        while len(rows) > 1 and middle(rows[-1]) - middle(rows[-2]) < gap * (len(rows[-1]) + len(rows[-2])) / 2:
            rows[-2:] = [rows[-2] + rows[-1]]
    found = list(places)
    for row in rows:
        for at, number in enumerate(row):
            found[number] = middle(row) + (at - (len(row) - 1) / 2) * gap
    return found
