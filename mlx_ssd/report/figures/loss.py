"""A student's loss over training: its terms, and the held-out loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlx_ssd.report.figures import words
from mlx_ssd.report.figures.figure import Figure
from mlx_ssd.report.figures.panels import Legend
from mlx_ssd.report.figures.style import BLUE, GREEN, INK, ORANGE, Look, sheet
from mlx_ssd.report.figures.svg import finished

MOST_POINTS = 60  # of a line; more steps are drawn as means
TERMS = {
    "loss": ("loss", Look(INK, "-", "", "")),
    "loss_conditional": ("within the support", Look(BLUE, (0, (5, 2)), "", "")),
    "loss_kept_mass": ("-log kept mass", Look(ORANGE, (0, (1, 1.2)), "", "")),
}
HELD_OUT = ("held out", Look(GREEN, "-", "s", ""))

Points = list[tuple[float, float]]  # (step, loss)


def loss_figures(log: dict[str, list[dict[str, Any]]]) -> list[Figure]:
    """A figure for each arm. `log`: the entries of its training log."""
    found = []
    for arm, entries in log.items():
        name = f"loss-{words.slug(arm)}"
        taken = {figure.name for figure in found}
        figure = _figure(arm, entries, name if name not in taken else f"{name}-{len(found) + 1}")
        found += [figure] if figure else []
    return found


def terms_of(entries: Sequence[dict[str, Any]]) -> dict[str, Points]:
    """Of each term, (step, value), and "validation"; steps that were skipped have no loss."""
    found = {
        term: [(entry["step"], entry[term]) for entry in entries if entry["step"] > 0 and words.finite(entry.get(term))]
        for term in TERMS
    }
    found["validation"] = [
        (entry["step"], entry["validation"]["loss"])
        for entry in entries
        if words.finite((entry.get("validation") or {}).get("loss"))
    ]
    return {term: points for term, points in found.items() if points}


def thinned(points: Points, most: int = MOST_POINTS) -> tuple[Points, int]:
    """Means of so many steps each, so that no more points are left than `most`; and of how many."""
    each = -(-len(points) // most)
    groups = [points[start : start + each] for start in range(0, len(points), each)]
    return [(sum(s for s, _ in g) / len(g), sum(v for _, v in g) / len(g)) for g in groups], each


def _figure(arm: str, entries: Sequence[dict[str, Any]], name: str) -> Figure | None:
    terms = terms_of(entries)
    if "loss" not in terms and "validation" not in terms:
        return None
    each, legend, said = 1, Legend(), []
    upper = [term for term in ("loss", "loss_conditional") if term in terms]
    lower = [term for term in ("loss_kept_mass",) if term in terms]
    for term in (*upper, *lower):
        label, look = TERMS[term]
        legend.line(look, label)
        said.append(_tenths(label, terms[term]))
    if "validation" in terms:
        legend.line(HELD_OUT[1], HELD_OUT[0])
        said.append(_held_out(terms["validation"]))
    ratios = [2, 1] if lower else [1]
    with sheet((400 if lower else 300) + legend.height) as page:
        axes = page.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
        for ax, drawn in zip(axes, (upper, lower), strict=False):
            for term in drawn:
                look = TERMS[term][1]
                points, each = thinned(terms[term])
                ax.plot(*zip(*points, strict=True), color=look.colour, linestyle=look.dash, gid=f"term.{term}")
        if "validation" in terms:
            look, points = HELD_OUT[1], terms["validation"]
            axes[0].plot(*zip(*points, strict=True), color=look.colour, marker=look.marker, gid="term.validation")
            step, best = min(points, key=lambda point: point[1])
            axes[0].plot([step], [best], color=look.colour, marker=look.marker, markersize=10, gid="best.validation")
        axes[0].set_ylabel("loss, nats a token")
        if lower:
            axes[1].set_ylabel("-log kept mass")
        axes[-1].set_xlabel("optimizer step")
        legend.draw(page)
        means = f" Each point is the mean of {each} steps." if each > 1 else ""
        split = (
            " It is the sum of two terms: -log of the mass on the target's support, on a scale of its own below, and "
            "the loss within the support."
            if lower
            else ""
        )
        held = ""
        if "validation" in terms:
            held = " Held out: of validation samples; step 0 is the base, the large mark the best."
        caption = (
            f"Training loss of {words.clean(arm)}, mean over the completion tokens of a step.{split}{held}{means} "
            "The axes do not begin at zero. From train_log.jsonl."
        )
        return finished(page, name, f"Loss of {words.clean(arm)}", caption, " ".join(said))


def _tenths(label: str, points: Points) -> str:
    tenth = max(1, len(points) // 10)
    first, last = (sum(v for _, v in part) / tenth for part in (points[:tenth], points[-tenth:]))
    return (
        f"{label.capitalize()}: {words.number(first)} in the first tenth of {len(points)} steps, "
        f"{words.number(last)} in the last."
    )


def _held_out(points: Points) -> str:
    step, best = min(points, key=lambda point: point[1])
    return f"Held-out loss: {words.number(points[0][1])} at step {points[0][0]}, least {words.number(best)} at {step}."
