"""How answers look: their length, how they end and how they are judged, by arm."""

from __future__ import annotations

from typing import Any

from mlx_ssd.report.figures import words
from mlx_ssd.report.figures.figure import Figure
from mlx_ssd.report.figures.panels import Legend, Row, Stack, bars, height_of, stacks
from mlx_ssd.report.figures.style import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    arms_of,
    looks,
    sheet,
)
from mlx_ssd.report.figures.svg import finished

# The good one first and solid; others in the order in which they come, each with a hatch of its own.
FIRST = {"stop": (BLUE, ""), "pass": (BLUE, "")}
OTHERS = (
    (ORANGE, "////"), (YELLOW, "xxxx"), (VERMILLION, "\\\\\\\\"), (SKY, "++++"), (PURPLE, "----"), (GREEN, "||||"),
)  # fmt: skip


def answer_figures(report: dict[str, Any]) -> list[Figure]:
    found = [
        _length(report),
        _shares(report, "finish_reasons", "answer-endings", "How answers end", "ended by"),
        _shares(report, "verdicts", "answer-verdicts", "How answers are judged", "judged"),
    ]
    return [figure for figure in found if figure]


def _length(report: dict[str, Any]) -> Figure | None:
    scores = [s for s in report.get("scores") or [] if words.finite(s.get("completion_tokens"))]
    if not scores:
        return None
    look, short = looks(arms_of(report)), words.short(score["arm"] for score in scores)
    first = scores[0]["completion_tokens"]
    rows, said = [], []
    for number, score in enumerate(scores):
        tokens = score["completion_tokens"]
        text = f"{tokens:.1f} tokens"
        if number and first:
            text += f", {100 * (tokens / first - 1):+.1f} %"
        if words.finite(score.get("extractable_code")):
            text += f"; {100 * score['extractable_code']:.1f} % with code"
        rows.append(Row(f"{short[score['arm']]}: {text}", tokens, look[score["arm"]], f"length.{number}"))
        said.append(f"{words.clean(score['arm'])}: {text}.")
    with sheet(height_of([rows])) as page:
        bars(page.subplots(), rows, "completion tokens, mean over answers")
        caption = (
            f"Mean length of the answers to the test problems, beside it the change to {words.clean(scores[0]['arm'])} "
            "and the share of answers in which code was found. No intervals. From report.json (scores)."
        )
        return finished(page, "answer-length", "Length of the answers", caption, " ".join(said))


def _shares(report: dict[str, Any], of: str, name: str, title: str, what: str) -> Figure | None:
    scores = [s for s in report.get("scores") or [] if sum((s.get(of) or {}).values())]
    if not scores:
        return None
    kinds = list(dict.fromkeys(kind for score in scores for kind in score[of]))
    kinds.sort(key=lambda kind: kind not in FIRST)
    drawn, others = {}, 0
    for kind in kinds:
        colour, hatch = FIRST.get(kind) or OTHERS[others % len(OTHERS)]
        others += kind not in FIRST
        drawn[kind] = {"facecolor": colour, "hatch": hatch}
    short_arm, short_kind = words.short(score["arm"] for score in scores), words.short(kinds, 20)
    rows, said, legend = [], [], Legend()
    for number, score in enumerate(scores):
        total = sum(score[of].values())
        shares = {kind: 100 * score[of].get(kind, 0) / total for kind in kinds}
        text = f"{short_arm[score['arm']]}: {shares[kinds[0]]:.1f} % {short_kind[kinds[0]]}"
        rows.append(Stack(text, [(share, drawn[kind]) for kind, share in shares.items()], f"{name}-{number}"))
        each = words.listed([f"{share:.1f} % {words.clean(kind)}" for kind, share in shares.items()])
        said.append(f"{words.clean(score['arm'])}: {each}.")
    for kind in kinds:
        legend.bar(short_kind[kind], **drawn[kind], edgecolor=INK, linewidth=0.6)
    with sheet(height_of([rows], legend)) as page:
        stacks(page.subplots(), rows, "answers, %", longest=100.0)
        legend.draw(page)
        caption = f"Share of the answers to the test problems by what they were {what}. From report.json (scores)."
        return finished(page, name, title, caption, " ".join(said))
