"""Locks and forks before and after: mass outside the support, and the entropy's parts (the paper's Fig. 5, Eq. 30)."""

from __future__ import annotations

from typing import Any

from mlx_ssd.layout import BASE
from mlx_ssd.report.figures import words
from mlx_ssd.report.figures.figure import Figure
from mlx_ssd.report.figures.panels import Legend, Row, Stack, bars, height_of, stacked_axes, stacks
from mlx_ssd.report.figures.style import BLUE, INK, KNOWN, SKY, YELLOW, arms_of, looks, sheet
from mlx_ssd.report.figures.svg import finished

LABELS = ("lock", "between", "fork")
# Dark to light, so that they differ in grey too.
PARTS = {"gate": BLUE, "head": SKY, "tail": YELLOW}
MEANING = {
    "gate": "whether the token is of the support",
    "head": "choice within the support",
    "tail": "choice outside it",
}


def lock_figures(report: dict[str, Any]) -> list[Figure]:
    return [figure for figure in (_tail_mass(report), _entropy(report)) if figure]


Side = tuple[str, dict[str, Any], dict[str, Any] | None]  # name, means, differences to the base (None: it is the base)


def sides_of(report: dict[str, Any], label: str) -> list[Side]:
    """The base once, then each student; a base of other texts again."""
    found: list[Side] = []
    for arm, analysis in (report.get("analysis") or {}).items():
        of = (analysis.get("labels") or {}).get(label) or {}
        base, student = of.get("base"), of.get("student")
        if not base or not student:
            continue
        if base not in [means for _, means, _ in found]:
            found.append((f"{BASE} on the texts of {arm}" if found else BASE, base, None))
        found.append((arm, student, of.get("difference") or {}))
    return found


def _shares(report: dict[str, Any], label: str) -> str:
    """What the label's panel is called; with its tokens where all arms read the same."""
    found = set()
    for analysis in report["analysis"].values():
        of = (analysis.get("labels") or {}).get(label) or {}
        if words.finite(of.get("tokens"), of.get("share")):
            found.add(f"{label}: {of['tokens']:,} tokens, {100 * of['share']:.1f} %")
    return found.pop() if len(found) == 1 else label


def _rule(report: dict[str, Any]) -> str:
    for analysis in report["analysis"].values():
        if (analysis.get("rule") or {}).get("words"):
            said = words.clean(analysis["rule"]["words"]).rstrip(".")
            return f" {said[:1].upper()}{said[1:]}."
    return ""


def _names(report: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    names = [name for label in LABELS for name, _, _ in sides_of(report, label)]
    return looks([*arms_of(report), *names]), words.short(names)


def _tail_mass(report: dict[str, Any]) -> Figure | None:
    (look, short), panels, said = _names(report), {}, []
    for label in LABELS:
        rows = []
        for name, means, differences in sides_of(report, label):
            if not words.finite(means.get("tail_mass")):
                continue
            value, change = 100 * means["tail_mass"], words.interval((differences or {}).get("tail_mass"))
            kept = f", kept {100 * means['kept_mass']:.4g}" if words.finite(means.get("kept_mass")) else ""
            text = f"{words.number(value)} %{kept}" + (f", change {_points(change)}" if change else "")
            rows.append(Row(f"{short[name]}: {text}", value, look[name], f"tail-{label}.{len(rows)}"))
            said.append(f"{label}, {words.clean(name)}: {text}.")
        if rows:
            panels[label] = rows
    if not panels:
        return None
    with sheet(height_of(list(panels.values()))) as page:
        for ax, (label, rows) in zip(stacked_axes(page, list(panels.values())), panels.items(), strict=True):
            bars(ax, rows, "")
            ax.set_title(_shares(report, label))
        ax.set_xlabel("mean mass outside the support, %")
        caption = (
            "Mean probability, at temperature 1, of the tokens outside the support that the base's sampling keeps, "
            "by kind of position; each kind has a scale of its own. Kept: the rest. Changes to the base are in "
            "points, with 95 % bootstrap intervals over problems."
            f"{_rule(report)} From analysis.json (labels)."
        )
        return finished(page, "tail-mass", "Tail mass at locks and forks", caption, " ".join(said))


def _points(of: dict[str, float]) -> str:
    low, mean, high = (100 * of[name] for name in ("low", "mean", "high"))
    digits = 1 if max(abs(low), abs(high)) >= 1 else 3
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def _nats(of: dict[str, float]) -> str:
    digits = 3 if max(abs(value) for value in of.values()) >= 0.05 else 4
    return f"{of['mean']:+.{digits}f} [{of['low']:+.{digits}f}, {of['high']:+.{digits}f}]"


def _entropy(report: dict[str, Any]) -> Figure | None:
    short, panels, said = _names(report)[1], {}, []
    for label in LABELS:
        rows = []
        for name, means, differences in sides_of(report, label):
            if not words.finite(*(means.get(part) for part in PARTS)):
                continue
            hatch = KNOWN[BASE].hatch if differences is None else ""
            parts = [(max(0.0, means[part]), {"facecolor": c, "hatch": hatch}) for part, c in PARTS.items()]
            text = f"{words.number(sum(value for value, _ in parts))} nats"
            changes = {part: words.interval((differences or {}).get(part)) for part in PARTS}
            beside = f", head {_nats(changes['head'])}" if changes["head"] else ""
            rows.append(Stack(f"{short[name]}: {text}{beside}", parts, f"entropy-{label}-{len(rows)}"))
            each = [
                f"{part} {words.number(value)}" + (f", change {_nats(changes[part])}" if changes[part] else "")
                for part, (value, _) in zip(PARTS, parts, strict=True)
            ]
            said.append(f"{label}, {words.clean(name)}: {text}: {'; '.join(each)}.")
        if rows:
            panels[label] = rows
    if not panels:
        return None
    legend = Legend()
    for part, colour in PARTS.items():
        legend.bar(f"{part}: {MEANING[part]}", facecolor=colour, edgecolor=INK, linewidth=0.6)
    with sheet(height_of(list(panels.values()), legend)) as page:
        for ax, (label, rows) in zip(stacked_axes(page, list(panels.values())), panels.items(), strict=True):
            stacks(ax, rows, "")
            ax.set_title(_shares(report, label))
        ax.set_xlabel("mean entropy, nats")
        legend.draw(page)
        caption = (
            "Mean entropy at temperature 1 and its three parts, by kind of position; the base is hatched, and each "
            "kind has a scale of its own. Beside the students, how much more head entropy they have than the base, "
            f"with 95 % bootstrap intervals over problems.{_rule(report)} From analysis.json (labels)."
        )
        return finished(page, "entropy-split", "Entropy at locks and forks", caption, " ".join(said))
