"""pass@k against the temperature of the evaluation, for every arm (the paper's Fig. 2)."""

from __future__ import annotations

from typing import Any

from mlx_ssd.layout import BASE
from mlx_ssd.report.figures import words
from mlx_ssd.report.figures.figure import Figure
from mlx_ssd.report.figures.panels import Legend
from mlx_ssd.report.figures.style import arms_of, looks, sheet
from mlx_ssd.report.figures.svg import finished

APART = 0.014  # of the temperatures' span, from one arm's points to the next arm's
TESTED = 10  # size of the mark at the decoding that is tested; others have 5

Series = tuple[str, float]  # arm, top-p


def curve_figures(report: dict[str, Any]) -> list[Figure]:
    ks = sorted({k for point in report.get("curve") or [] for k in point["pass_at"]}, key=int)
    return [figure for k in ks if (figure := _figure(report, k))]


def series_of(report: dict[str, Any], k: str) -> dict[Series, dict[float, dict[str, float]]]:
    """By series and temperature, ascending, pass@k with its interval."""
    found: dict[Series, dict[float, dict[str, float]]] = {}
    for point in sorted(report["curve"], key=lambda point: point["temperature"]):
        if of := words.interval(point["pass_at"].get(k)):
            found.setdefault((point["arm"], point["top_p"]), {})[point["temperature"]] = of
    order = arms_of(report)
    own = _own(report)[1]
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0][0]), item[0][1] != own, item[0][1])))


def _own(report: dict[str, Any]) -> tuple[float | None, float | None]:
    """(temperature, top-p) that base and students are tested at."""
    decoding = report.get("evaluate_decoding") or {}
    return decoding.get("temperature"), decoding.get("top_p")


def tested(report: dict[str, Any], arm: str) -> list[tuple[float | None, float | None]]:
    """(temperature, top-p) at which the test problems were asked of an arm; of the base its best one too."""
    best = (report.get("base_best") or {}).get("decoding")
    chosen = [(best.get("temperature"), best.get("top_p"))] if best and arm == BASE else []
    return [_own(report), *chosen]


def _figure(report: dict[str, Any], k: str) -> Figure | None:
    series = series_of(report, k)
    if not series:
        return None
    suite = report["curve"][0]["suite"]
    look, own = looks(arms_of(report)), _own(report)[1]
    short = words.short((arm for arm, _ in series), 26)
    legend, temperatures = Legend(), sorted({t for points in series.values() for t in points})
    step = APART * ((temperatures[-1] - temperatures[0]) or 1.0)
    said = []
    for arm, top_p in series:
        of = look[arm]
        label = short[arm] + ("" if top_p == own else f", top-p {top_p:g}")
        legend.line(of, label, **({} if top_p == own else {"markerfacecolor": "none", "linewidth": 1.0}))
    with sheet(330 + legend.height) as page:
        ax = page.subplots()
        for number, ((arm, top_p), points) in enumerate(series.items()):
            of, plain = look[arm], top_p == own
            shift = (number - (len(series) - 1) / 2) * step
            xs = [temperature + shift for temperature in points]
            ys = [100 * value["mean"] for value in points.values()]
            lows, highs = ([100 * value[end] for value in points.values()] for end in ("low", "high"))
            ax.vlines(xs, lows, highs, color=of.colour, linewidth=1.0, alpha=0.55, gid=f"series.{number}.interval")
            width, inside = (1.8, of.colour) if plain else (1.0, "none")
            ax.plot(
                xs, ys, color=of.colour, linestyle=of.dash, linewidth=width, marker=of.marker,
                markerfacecolor=inside, gid=f"series.{number}",
            )  # fmt: skip
            at = [i for i, t in enumerate(points) if (t, top_p) in tested(report, arm)]
            ax.plot(
                [xs[i] for i in at], [ys[i] for i in at], linestyle="", marker=of.marker, markersize=TESTED,
                color=of.colour, markerfacecolor=inside, gid=f"tested.{number}",
            )  # fmt: skip
            said.append(_said(arm, top_p, own, points, [list(points)[i] for i in at]))
        ax.set_xticks(temperatures, [f"{temperature:g}" for temperature in temperatures])
        ax.set_xlabel("temperature of the evaluation")
        ax.set_ylabel(f"pass@{k}, %")
        legend.draw(page)
        title = f"pass@{k} by temperature"
        caption = (
            f"pass@{k} on {suite}, where settings are chosen, at each temperature of the evaluation"
            f"{'' if own is None else f' (top-p {own:g} where no other is named)'}. "
            "Bars are 95 % bootstrap intervals over problems; points of one temperature stand side by side. "
            "Large marks: the decodings that the test problems are asked with. From report.json (curve)."
        )
        alt = f"pass@{k} in % on {suite}, with 95 % intervals. " + " ".join(said)
        return finished(page, f"pass-at-{k}-by-temperature", title, caption, alt)


def _said(arm: str, top_p: float, own: float | None, points: dict[float, dict[str, float]], at: list[float]) -> str:
    best = max(points, key=lambda t: points[t]["mean"])
    worst = min(points, key=lambda t: points[t]["mean"])
    name = words.clean(arm) + ("" if top_p == own else f" at top-p {top_p:g}")
    found = f"{name}: highest {words.percent(points[best])} at T {best:g}"
    if worst != best:
        found += f", lowest {words.percent(points[worst])} at T {worst:g}"
    for temperature in at:
        found += f", {words.percent(points[temperature])} at T {temperature:g}, which is tested"
    return found + "."
