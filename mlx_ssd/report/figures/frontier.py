"""pass@1 over what an answer takes: peak memory and decode tok/s (`mlx-ssd frontier`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx_ssd.report.figures import words
from mlx_ssd.report.figures.figure import Figure
from mlx_ssd.report.figures.panels import Legend, apart
from mlx_ssd.report.figures.style import WIDTH, looks, sheet
from mlx_ssd.report.figures.svg import finished

MARK = 11  # pixels from one mark to the next, so that both are seen
INSIDE = WIDTH - 70  # pixels that the axes are wide, about


def frontier_figure(facts: Mapping[str, Any]) -> Figure | None:
    """facts: frontier.json. None where nothing was graded."""
    lines = [(line, of) for line in facts["lines"] if (of := words.interval(line.get("pass_at_1")))]
    if not lines:
        return None
    names = [line["name"] for line, _ in lines]
    whole = [line["name"] + (f", {line['decoding']}" if names.count(line["name"]) > 1 else "") for line, _ in lines]
    look, short = looks(whole), words.short(whole, 44)
    costs = {
        "memory": ("MLX's peak memory, MB", [line["speed"]["mlx_peak_bytes"] / 1e6 for line, _ in lines]),
        "speed": ("decode tokens/s", [line["speed"]["decode_tps"]["mean"] for line, _ in lines]),
    }
    legend = Legend()
    for name in whole:
        legend.line(look[name], short[name], linestyle="", markersize=8)
    with sheet(560 + legend.height) as page:
        for ax, (kind, (unit, xs)) in zip(page.subplots(2, 1), costs.items(), strict=True):
            right = 1.06 * max(xs)
            for number, (name, (_, of), x) in enumerate(
                zip(whole, lines, apart(xs, MARK * right / INSIDE), strict=True)
            ):
                colour = look[name].colour
                ax.vlines(
                    [x], 100 * of["low"], 100 * of["high"], color=colour, linewidth=1.6, gid=f"{kind}-{number}.interval"
                )
                ax.plot(
                    [x], [100 * of["mean"]], marker=look[name].marker, markersize=8, color=colour, linestyle="",
                    gid=f"{kind}.{number}", clip_on=False,
                )  # fmt: skip
            ax.set_xlim(0, right)
            ax.set_xlabel(unit)
            ax.set_ylabel("pass@1, %")
        legend.draw(page)
        caption = (
            f"pass@1 on the {facts['problems']} test problems of {words.clean(facts['run'])}, with 95 % bootstrap "
            "intervals over problems, over the memory that MLX held at most (above; left is less) and the speed of "
            "decoding (below; right is faster). Marks that would hide one another stand side by side. "
            "From frontier.json."
        )
        alt = "pass@1 in % with 95 % intervals. " + " ".join(
            f"{words.clean(name)}: {words.percent(of)}, {costs['memory'][1][i]:,.0f} MB, "
            f"{costs['speed'][1][i]:,.1f} tokens/s."
            for i, (name, (_, of)) in enumerate(zip(whole, lines, strict=True))
        )
        return finished(page, "frontier", "What it solves, and what it takes", caption, alt)
