"""report.json as Markdown."""

from __future__ import annotations

from typing import Any

from mlx_ssd.progress import duration


def percent(interval: dict[str, float]) -> str:
    return f"{100 * interval['mean']:.1f} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def points(interval: dict[str, float]) -> str:
    return f"{100 * interval['mean']:+.1f} [{100 * interval['low']:+.1f}, {100 * interval['high']:+.1f}]"


def table(facts: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the main table: an arm a row, then the differences. The columns of
    difficulty levels are the first pass@k there; at 80 columns there is no room for more words."""
    ks = sorted({k for score in facts["scores"] for k in score["pass_at"]}, key=int)
    levels = sorted({d for score in facts["scores"] for d in score["pass_at_by_difficulty"]})
    header = ["arm", *(f"pass@{k} %" for k in ks), *levels]
    rows = []
    for score in facts["scores"]:
        by_level = score["pass_at_by_difficulty"]
        rows.append(
            [
                score["arm"],
                *(percent(score["pass_at"][k]) if k in score["pass_at"] else "-" for k in ks),
                *(f"{100 * by_level[d][ks[0]]:.1f}" if ks and ks[0] in by_level.get(d, {}) else "-" for d in levels),
            ]
        )
    for comparison in facts["comparisons"]:
        differences = comparison["difference"]
        rows.append(
            [
                f"{comparison['arm']} - {comparison['baseline']}",
                *(points(differences[k]) if k in differences else "-" for k in ks),
                *([""] * len(levels)),
            ]
        )
    return header, rows


def decoding(settings: dict[str, Any]) -> str:
    order = settings["order"].replace("_", " ")
    return f"T {settings['temperature']:g}, top-k {settings['top_k']}, top-p {settings['top_p']:g} ({order})"


def lines_beside(facts: dict[str, Any]) -> list[str]:
    """What stands under the table, a fact a line."""
    scores, curation, training = facts["scores"], facts["curation"], facts["training"]
    dropped = ", ".join(f"{n} {reason}" for reason, n in curation["dropped"].items() if n) or "none"
    beside = "; ".join(
        f"{s['arm']} {100 * s['extractable_code']:.1f} % with code, {s['completion_tokens']:.1f} tokens, "
        + ", ".join(f"{100 * n / sum(s['verdicts'].values()):.1f} % {v}" for v, n in s["verdicts"].items())
        for s in scores
    )
    first, last = training["loss_first_tenth"], training["loss_last_tenth"]
    times = ", ".join(f"{name} {duration(seconds)}" for name, seconds in facts["seconds"].items())
    levels = sorted(scores[0]["pass_at_by_difficulty"])
    first_k = min(scores[0]["pass_at"], key=int, default=None)
    of_levels = f" {' and '.join(levels)}: pass@{first_k} by difficulty." if levels and first_k else ""
    return [
        f"{scores[0]['problems']} problems of {scores[0]['suite']}, {scores[0]['samples_per_problem']} samples each, "
        + f"decoded at {decoding(facts['evaluate_decoding'])}; 95 % bootstrap intervals over problems."
        + of_levels,
        f"Answers: {beside}.",
        f"Trained on {curation['kept']:,} of {curation['samples']:,} self-samples drawn at "
        + f"{decoding(facts['sample_decoding'])}; dropped: {dropped}. No answer was checked.",
        f"{training['steps']} optimizer steps; loss {first:.3f} (first tenth) -> {last:.3f} (last tenth).",
        f"Time: {times}; peak memory {facts['peak_rss_bytes'] / 1e9:.1f} GB.",
    ]


def render(facts: dict[str, Any]) -> str:
    header, rows = table(facts)
    lines = [
        f"# {facts['recipe']}: base against student",
        "",
        f"Model `{facts['model']['path']}`, revision `{facts['model']['revision']}`.",
        "",
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        *(f"- {line}" for line in facts["verdict"]),
        "",
        *(f"- {line}" for line in lines_beside(facts)),
        "",
        "Not measured here:",
        "",
        *(f"- {line}" for line in facts["not_measured"]),
        "",
        "Next:",
        "",
        f"    {facts['next']}",
        "",
    ]
    return "\n".join(lines)
