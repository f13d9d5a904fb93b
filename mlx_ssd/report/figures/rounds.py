"""pass@k by round, of runs that distil more than once.

report["rounds"]: [{"round": 1, "arm": name, "pass_at": {k: {"mean", "low", "high"}}}, …]; round 0 is the base.
"""

from __future__ import annotations

from typing import Any

from mlx_ssd.report.figures import words
from mlx_ssd.report.figures.figure import Figure
from mlx_ssd.report.figures.panels import Legend
from mlx_ssd.report.figures.style import arms_of, looks, sheet
from mlx_ssd.report.figures.svg import finished

APART = 0.08  # of a round, from one arm's points to the next arm's


def round_figures(report: dict[str, Any]) -> list[Figure]:
    ks = sorted({k for entry in report.get("rounds") or [] for k in entry["pass_at"]}, key=int)
    return [figure for k in ks if (figure := _figure(report, k))]


def _figure(report: dict[str, Any], k: str) -> Figure | None:
    series: dict[str, dict[int, dict[str, float]]] = {}
    for entry in sorted(report["rounds"], key=lambda entry: entry["round"]):
        if of := words.interval(entry["pass_at"].get(k)):
            series.setdefault(entry["arm"], {})[entry["round"]] = of
    if not series:
        return None
    look, short, legend = looks([*arms_of(report), *series]), words.short(series), Legend()
    for arm in series:
        legend.line(look[arm], short[arm])
    rounds = sorted({number for points in series.values() for number in points})
    with sheet(300 + legend.height) as page:
        ax = page.subplots()
        for number, (arm, points) in enumerate(series.items()):
            of = look[arm]
            xs = [r + (number - (len(series) - 1) / 2) * APART for r in points]
            lows, means, highs = ([100 * v[end] for v in points.values()] for end in ("low", "mean", "high"))
            ax.vlines(xs, lows, highs, color=of.colour, linewidth=1.4, gid=f"round.{number}.interval")
            ax.plot(xs, means, color=of.colour, linestyle=of.dash, marker=of.marker, gid=f"round.{number}")
        ax.set_xlim(rounds[0] - 0.5, rounds[-1] + 0.5)
        ax.set_xticks(rounds, [str(r) for r in rounds])
        ax.set_xlabel("round")
        ax.set_ylabel(f"pass@{k}, %")
        legend.draw(page)
        said = " ".join(
            f"{words.clean(arm)}: "
            + ", ".join(f"round {r} {words.percent(v)}" for r, v in points.items())
            + "."
            for arm, points in series.items()
        )
        caption = (
            f"pass@{k} after each round of self-distillation, with 95 % bootstrap intervals over problems; arms stand "
            "side by side. From report.json (rounds)."
        )
        return finished(page, f"rounds-pass-{k}", f"pass@{k} by round", caption, f"pass@{k} in %. {said}")
