"""pass@k of every arm on the test problems, and every paired difference (a forest plot)."""

from __future__ import annotations

from typing import Any

from mlx_ssd.layout import BASE
from mlx_ssd.report.figures import words
from mlx_ssd.report.figures.figure import Figure
from mlx_ssd.report.figures.panels import Legend, Row, height_of, marks, stacked_axes
from mlx_ssd.report.figures.style import BLUE, INK, VERMILLION, Look, arms_of, looks, sheet
from mlx_ssd.report.figures.svg import finished

STANDING = {  # of an interval to zero: how it is drawn, and what it says
    "above": (Look(BLUE, "-", "o", ""), "above zero"),
    "holds": (Look(INK, "-", "D", ""), "holds zero: cannot be told"),
    "below": (Look(VERMILLION, "-", "s", ""), "below zero"),
}


def scores_figure(report: dict[str, Any]) -> Figure | None:
    scores = report.get("scores") or []
    look, short = looks(arms_of(report)), words.short((score["arm"] for score in scores), 26)
    panels, said = {}, []
    for k in sorted({k for score in scores for k in score["pass_at"]}, key=int):
        rows = []
        for score in scores:
            if of := words.interval(score["pass_at"].get(k)):
                arm = score["arm"]
                rows.append(_row(f"{short[arm]}: {words.percent(of)}", of, look[arm], f"pass-{k}.{len(rows)}"))
                said.append(f"pass@{k} of {words.clean(arm)}: {words.percent(of)} %.")
        if rows:
            panels[k] = rows
    if not panels:
        return None
    suite, problems = scores[0]["suite"], scores[0]["graded_problems"]
    with sheet(height_of(list(panels.values()))) as page:
        for ax, (k, rows) in zip(stacked_axes(page, list(panels.values())), panels.items(), strict=True):
            marks(ax, rows, f"pass@{k}, %")
        caption = (
            f"pass@k of base and students on the {problems} test problems with tests of {suite}, with 95 % bootstrap "
            "intervals over problems. Overlapping intervals do not say that two arms are alike: their paired "
            "differences do. From report.json (scores)."
        )
        return finished(page, "scores", "Scores", caption, " ".join(said))


def differences_figure(report: dict[str, Any]) -> Figure | None:
    comparisons = report.get("comparisons") or []
    short = words.short((name for c in comparisons for name in (c["arm"], c["baseline"])), 20)
    panels, said, found = {}, [], set()
    for k in sorted({k for c in comparisons for k in c["difference"]}, key=int):
        rows = []
        for c in comparisons:
            if not (of := words.interval(c["difference"].get(k))):
                continue
            same = c["baseline"] == BASE and c["decoding"] == c["baseline_decoding"]
            beside = " at the same decoding" if same else ""
            stands = standing(of)
            found.add(stands)
            text = f"{short[c['arm']]} - {short[c['baseline']]}{beside}: {words.points(of)}"
            gid = f"difference-{k}.{len(rows)}"
            rows.append(_row(text, of, STANDING[stands][0], gid, filled=stands != "holds"))
            names = f"{words.clean(c['arm'])} - {words.clean(c['baseline'])}{beside}"
            said.append(f"pass@{k}, {names}: {words.points(of)}, {STANDING[stands][1]}.")
        if rows:
            panels[k] = rows
    if not panels:
        return None
    legend = Legend()
    for stands, (look, label) in STANDING.items():
        if stands in found:
            hollow = {"markerfacecolor": "none"} if stands == "holds" else {}
            legend.line(look, label, markersize=7, **hollow)
    with sheet(height_of(list(panels.values()), legend)) as page:
        for ax, (k, rows) in zip(stacked_axes(page, list(panels.values())), panels.items(), strict=True):
            marks(ax, rows, f"difference in pass@{k}, points", zero=True)
        legend.draw(page)
        caption = (
            "Differences in pass@k in points, paired over the test problems, with 95 % bootstrap intervals; right of "
            "zero the first arm is better. Colours and marks say where the interval stands. From report.json "
            "(comparisons)."
        )
        alt = "Differences in points with 95 % intervals. " + " ".join(said)
        return finished(page, "differences", "Differences between arms", caption, alt)


def standing(of: dict[str, float]) -> str:
    if of["low"] > 0:
        return "above"
    return "below" if of["high"] < 0 else "holds"


def _row(text: str, of: dict[str, float], look: Look, gid: str, filled: bool = True) -> Row:
    return Row(text, 100 * of["mean"], look, gid, 100 * of["low"], 100 * of["high"], filled)
