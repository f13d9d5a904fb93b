"""What truncation leaves of base and students (the paper's Fig. 6): mass by rank, surviving tokens, entropy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlx_ssd.layout import BASE
from mlx_ssd.report.figures import words
from mlx_ssd.report.figures.figure import Figure
from mlx_ssd.report.figures.locks import LABELS
from mlx_ssd.report.figures.panels import Legend
from mlx_ssd.report.figures.style import Look, arms_of, looks, sheet
from mlx_ssd.report.figures.svg import finished

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RESOLUTION = 1e-7  # of one minus a sum of float32 probabilities; a smaller rest is not drawn
RANKS = (1, 5, 20, 60)  # that the alternative text names


@dataclass(frozen=True)
class Line:
    label: str  # short
    name: str  # whole
    look: Look
    values: list[float]


def truncation_figures(report: dict[str, Any]) -> list[Figure]:
    found = [_mass(report)]
    for metric in ("surviving", "entropy"):
        found += [_by_temperature(report, metric), _by_label(report, metric)]
    return [figure for figure in found if figure]


def _sides(report: dict[str, Any], metric: str, label: str | None) -> Iterator[tuple[str, list[float]]]:
    """(name, values): the base once, and each student; the base again where a student's texts are others. `label`:
    of the metric by label, those of one."""
    seen: list[list[float]] = []
    for arm, analysis in (report.get("analysis") or {}).items():
        of = analysis.get(metric) or {}
        of = of if label is None else of.get(label) or {}
        for side, name in ((BASE, BASE), ("student", arm)):
            values = of.get(side)
            if not values or not words.finite(*values) or (side == BASE and values in seen):
                continue
            if side == BASE:
                name = f"{BASE} on the texts of {arm}" if seen else BASE
                seen.append(values)
            yield name, [float(value) for value in values]


def lines_of(report: dict[str, Any], metric: str, label: str | None = None) -> list[Line]:
    sides = list(_sides(report, metric, label))
    look = looks(dict.fromkeys([*arms_of(report), *(name for name, _ in sides)]))
    short = words.short(name for name, _ in sides)
    return [Line(short[name], words.clean(name), look[name], values) for name, values in sides]


def _texts(report: dict[str, Any]) -> str:
    """Which texts were read."""
    found = {}
    for analysis in report["analysis"].values():
        of = analysis.get("texts") or {}
        if of.get("source"):
            count = f" ({of['tokens']:,} tokens)" if words.finite(of.get("tokens")) else ""
            found[of.get("sha")] = f"{words.clean(of['source'])}{count}"
    if len(found) > 1:
        return " Not all arms read the same texts."
    return "".join(f" All read the same texts: {text}." for text in found.values())


def _mass(report: dict[str, Any]) -> Figure | None:
    lines = lines_of(report, "mass_by_rank")
    if not lines:
        return None
    legend = _legend(lines, marker=False)
    with sheet(330 + legend.height) as page:
        ax = page.subplots()
        ax.set_yscale("log")
        rests = []
        for number, line in enumerate(lines):
            rest = [1 - mass if 1 - mass > RESOLUTION else float("nan") for mass in line.values]
            rests += [value for value in rest if value == value]
            ax.plot(
                range(1, len(rest) + 1), rest, color=line.look.colour, linestyle=line.look.dash, gid=f"mass.{number}"
            )
        if not rests:
            return None
        low, high = min(rests) / 1.3, min(1.0, max(rests) * 1.3)
        ticks = _nines(low, high)
        ax.set_ylim(high, low)  # more mass is further up
        ax.set_yticks(ticks, [f"{100 * (1 - tick):.6g}" for tick in ticks])
        ax.minorticks_off()
        ranks = max(len(line.values) for line in lines)
        ax.set_xlim(0, ranks + 1)
        ax.set_xticks([1, *range(10, ranks + 1, 10)])
        ax.set_xlabel("rank, likeliest first")
        ax.set_ylabel("mass of the tokens up to the rank, %")
        legend.draw(page)
        caption = (
            "Mean cumulative probability of the likeliest tokens at temperature 1, on a scale on which each further "
            f"nine takes the same height: the higher, the thinner the tail.{_texts(report)} No intervals. From "
            "analysis.json (mass_by_rank)."
        )
        alt = "Mean cumulative mass in %. " + " ".join(
            f"{line.name}: "
            + ", ".join(f"rank {r} {100 * line.values[r - 1]:.4g}" for r in RANKS if r <= len(line.values))
            + "."
            for line in lines
        )
        return finished(page, "mass-by-rank", "Mass by rank", caption, alt)


def _nines(low: float, high: float) -> list[float]:
    """Rests 0.1, 0.01, … between, and where these are fewer than three their halves and fifths too."""
    powers = [10.0**-n for n in range(8)]
    whole = [v for v in powers if low <= v <= high and v < 1]
    if len(whole) >= 3:
        return whole
    return sorted(v for power in powers for v in (power, power / 2, power / 5) if low <= v <= high and v < 1)


METRICS = {  # title, words for the caption, name of the axis
    "surviving": ("Tokens left by truncation", "Mean number of the tokens", "tokens"),
    "entropy": ("Entropy after truncation", "Mean entropy of the tokens", "nats"),
}


def _grid(report: dict[str, Any]) -> list[float]:
    """The temperatures."""
    analyses = (report.get("analysis") or {}).values()
    return next((analysis["temperatures"] for analysis in analyses if analysis.get("temperatures")), [])


def _by_temperature(report: dict[str, Any], metric: str) -> Figure | None:
    grid = _grid(report)
    lines = [line for line in lines_of(report, metric) if len(line.values) == len(grid)]
    if not lines:
        return None
    title, what, unit = METRICS[metric]
    legend = _legend(lines, marker=True)
    with sheet(300 + legend.height) as page:
        ax = page.subplots()
        _draw(ax, lines, grid, metric)
        ax.set_xlabel("temperature of the evaluation")
        ax.set_ylabel(f"{unit}, mean over positions")
        legend.draw(page)
        caption = (
            f"{what} that top-k and top-p of the evaluation leave, by temperature.{_texts(report)} No intervals. "
            f"From analysis.json ({metric})."
        )
        alt = f"{unit.capitalize()} left, by temperature. {_said(lines, grid)}"
        return finished(page, f"{metric}-by-temperature", title, caption, alt)


def _by_label(report: dict[str, Any], metric: str) -> Figure | None:
    """The same at locks, at forks and between, each with a scale of its own."""
    grid, panels = _grid(report), {}
    for label in LABELS:
        lines = [line for line in lines_of(report, f"{metric}_by_label", label) if len(line.values) == len(grid)]
        if lines:
            panels[label] = lines
    if not panels:
        return None
    title, what, unit = METRICS[metric]
    legend = _legend(max(panels.values(), key=len), marker=True)
    with sheet(60 + 150 * len(panels) + legend.height) as page:
        axes = page.subplots(len(panels), 1, squeeze=False)[:, 0]
        for ax, (label, lines) in zip(axes, panels.items(), strict=True):
            _draw(ax, lines, grid, f"{metric}-{label}")
            ax.set_title(label)
            ax.set_ylabel(unit)
        axes[-1].set_xlabel("temperature of the evaluation")
        legend.draw(page)
        caption = (
            f"{what} that top-k and top-p of the evaluation leave, by temperature, for each kind of position; each has "
            f"a scale of its own.{_texts(report)} No intervals. From analysis.json ({metric}_by_label)."
        )
        alt = f"{unit.capitalize()} left, by temperature. " + " ".join(
            f"{label.capitalize()}: {_said(lines, grid)}" for label, lines in panels.items()
        )
        return finished(page, f"{metric}-by-label", f"{title}, at locks and forks", caption, alt)


def _draw(ax: Axes, lines: Sequence[Line], grid: Sequence[float], gid: str) -> None:
    for number, line in enumerate(lines):
        look = line.look
        ax.plot(
            grid, line.values, color=look.colour, linestyle=look.dash, marker=look.marker, gid=f"{gid}.{number}",
            clip_on=False,
        )  # fmt: skip
    least = 1.0 if gid.startswith("surviving") else 0.0
    top = max(max(line.values) for line in lines)
    ax.set_ylim(least, least + 1.06 * max(top - least, 1e-3))


def _said(lines: Sequence[Line], grid: Sequence[float]) -> str:
    return " ".join(
        f"{line.name}: " + ", ".join(f"T {t:g} {words.number(v)}" for t, v in _some(grid, line.values)) + "."
        for line in lines
    )


def _some(grid: Sequence[float], values: Sequence[float]) -> list[tuple[float, float]]:
    """First, middle and last."""
    at = sorted({0, len(grid) // 2, len(grid) - 1})
    return [(grid[i], values[i]) for i in at]


def _legend(lines: Sequence[Line], marker: bool) -> Legend:
    legend = Legend()
    for line in lines:
        legend.line(line.look, line.label, marker)
    return legend
