"""The paper's state machine: success by temperature, its states before and after, and the gap by truncation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlx_ssd.layout import BASE, MAIN
from mlx_ssd.report.figures import words
from mlx_ssd.report.figures.figure import Figure
from mlx_ssd.report.figures.panels import Legend
from mlx_ssd.report.figures.style import FONT, INK, KNOWN, SMALL, sheet
from mlx_ssd.report.figures.svg import finished

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDES = {"teacher": KNOWN[BASE], "student": KNOWN[MAIN]}
STATES = ("root", "fork", "lock")
ROWS = {"bars": "T 1", "decoded": "best T"}
SHOWN = 5  # first tokens of a state


def toy_figure(toy: dict[str, Any]) -> Figure:
    """toy: {"teacher" and "student": {"T", "success", "best_T", "best"}, "bars": {state: {side: probabilities by
    token}}, "gaps": {top-p: student's best - teacher's best}}, and "decoded", like bars, where both are decoded at
    their best; all in fractions. The axes hold percent and points."""
    legend = Legend()
    for side, look in SIDES.items():
        best = f"{100 * toy[side]['best']:.2f} % at T {toy[side]['best_T']:.2f}"
        legend.line(look, f"{side}: at best {best}")
    rows = [kind for kind in ROWS if toy.get(kind)]
    with sheet(430 + 190 * len(rows) + legend.height) as page:
        parts = page.subfigures(2 + len(rows), 1, height_ratios=[1.25, 1, *(1 for _ in rows)])
        for part in parts:
            part.patch.set_visible(False)
        _success(parts[0].subplots(), toy)
        _gaps(parts[1].subplots(), toy)
        for part, kind in zip(parts[2:], rows, strict=True):
            states = [state for state in STATES if state in toy[kind]]
            for number, (ax, state) in enumerate(
                zip(part.subplots(1, len(states), squeeze=False)[0], states, strict=True)
            ):
                _bars(ax, kind, state, toy[kind][state], number)
        legend.draw(page)
        decoded = ", and as both are decoded at their best" if "decoded" in rows else ""
        caption = (
            "The paper's state machine, computed: the probability of success by decoding temperature, the teacher "
            "dashed and the student solid, marks at their best; how much further the student's best is, by top-p of "
            f"the decoding; and each state's probabilities by token at temperature 1{decoded}, the teacher hatched "
            "and the student solid. Token 0 is right; at the root 0 and 1 are two right paths. No sampling, so no "
            "intervals."
        )
        return finished(page, "toy", "The state machine", caption, _alt(toy, rows))


def _success(ax: Axes, toy: dict[str, Any]) -> None:
    for side, look in SIDES.items():
        of = toy[side]
        step = max(1, len(of["T"]) // 300)
        ys = [100 * value for value in of["success"][::step]]
        ax.plot(of["T"][::step], ys, color=look.colour, linestyle=look.dash, gid=f"success.{side}")
        ax.plot(
            [of["best_T"]], [100 * of["best"]], color=look.colour, marker=look.marker, markersize=8, gid=f"best.{side}"
        )
    ax.set_ylim(0, 108 * max(toy[side]["best"] for side in SIDES))
    ax.set_xlabel("temperature of the decoding")
    ax.set_ylabel("success, %")


def _gaps(ax: Axes, toy: dict[str, Any]) -> None:
    gaps = sorted((float(top_p), 100 * value) for top_p, value in toy["gaps"].items())
    ax.bar(range(len(gaps)), [value for _, value in gaps], width=0.6, **KNOWN[MAIN].bar())
    for number, (bar, (_, value)) in enumerate(zip(ax.patches, gaps, strict=True)):
        bar.set_gid(f"gap.{number}")
        ax.text(number, value, f"{value:.1f}", ha="center", va="bottom" if value >= 0 else "top", fontsize=SMALL)
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.set_xticks(range(len(gaps)), [f"{top_p:g}" for top_p, _ in gaps])
    ax.margins(y=0.12)
    ax.grid(axis="x", visible=False)
    ax.set_xlabel("top-p")
    ax.set_ylabel("student - teacher, points")


def _bars(ax: Axes, kind: str, state: str, of: dict[str, list[float]], number: int) -> None:
    opening = "" if kind == "bars" else f"{kind}-"
    for place, (side, look) in enumerate(SIDES.items()):
        values = [100 * value for value in of[side][:SHOWN]]
        at = [token + (place - 0.5) * 0.4 for token in range(len(values))]
        for token, bar in enumerate(ax.bar(at, values, width=0.38, **look.bar())):
            bar.set_gid(f"{opening}{state}-{side}.{token}")
    ax.set_title(f"{state}, {ROWS[kind]}", fontsize=FONT)
    ax.grid(axis="x", visible=False)
    shown = max(len(of[side][:SHOWN]) for side in SIDES)
    ax.set_xticks(range(shown), [str(token) for token in range(shown)])
    ax.set_xlabel("token")
    if number == 0:
        ax.set_ylabel("probability, %")


def _alt(toy: dict[str, Any], rows: list[str]) -> str:
    found = [
        f"{side.capitalize()}: best {100 * toy[side]['best']:.2f} % at T {toy[side]['best_T']:.3f}." for side in SIDES
    ]
    gaps = sorted((float(top_p), 100 * value) for top_p, value in toy["gaps"].items())
    found.append("Student - teacher: " + ", ".join(f"{v:+.2f} points at top-p {p:g}" for p, v in gaps) + ".")
    for kind in rows:
        for state in STATES:
            for side in SIDES:
                if state in toy[kind]:
                    values = ", ".join(f"{100 * value:.1f}" for value in toy[kind][state][side][:SHOWN])
                    found.append(f"{state.capitalize()} at {ROWS[kind]}, {side}: {values} %.")
    return words.clean(" ".join(found), 10_000)
