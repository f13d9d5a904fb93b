"""Everything the report says, computed from the run's files alone."""

from __future__ import annotations

from typing import Any

from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Comparison, Interval

NOT_MEASURED = (
    "The base at its own best temperature: part of this difference may be had from the base by decoding alone.",
    "Other training and sampling seeds: the intervals cover the choice of problems only.",
)
FEW_PROBLEMS = 20  # a percentile bootstrap over fewer is too narrow to judge by


def facts(
    recipe: Recipe,
    run_dir: str,
    manifest: dict[str, Any],
    scores: dict[str, Any],
    curation: dict[str, Any],
    losses: list[float],
) -> dict[str, Any]:
    """The report as plain data. `losses` is the training loss of every optimizer step."""
    comparisons = [Comparison.model_validate(c) for c in scores["comparisons"]]
    measured = {
        name: entry["measured"]
        for name, entry in manifest["stages"].items()
        if "measured" in entry and name != "report"  # this one is not over yet
    }
    tenth = max(1, len(losses) // 10)
    return {
        "v": 1,
        "recipe": recipe.name,
        "model": {
            "path": recipe.model.path,
            "revision": manifest["stages"]["sample"]["made_of"]["inputs"]["model"],
        },
        "sample_decoding": recipe.sample.decoding.model_dump(),
        "evaluate_decoding": recipe.evaluate.decoding.model_dump(),
        "scores": scores["scores"],
        "comparisons": scores["comparisons"],
        "curation": curation,
        "training": {
            "targets": recipe.train.targets,
            "steps": len(losses),
            "loss_first_tenth": sum(losses[:tenth]) / tenth,
            "loss_last_tenth": sum(losses[-tenth:]) / tenth,
        },
        "seconds": {name: entry["seconds"] for name, entry in measured.items()},
        "peak_rss_bytes": max(entry["peak_rss_bytes"] for entry in measured.values()),
        "verdict": [
            sentence(c, k, d, scores["scores"][0]["problems"])
            for c in comparisons
            for k, d in sorted(c.difference.items())
        ],
        "not_measured": list(NOT_MEASURED),
        "next": f'mlx-ssd try {run_dir} "Given a list of integers xs. Keep those that are even, then '
        f'square each, and return the sum.\n\ndef solve(xs):"'.replace("\n", "\\n"),
    }


def sentence(comparison: Comparison, k: int, difference: Interval, problems: int) -> str:
    """What one difference over so many problems allows to be said."""
    points = f"{100 * difference.mean:+.1f} points [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
    same = comparison.decoding == comparison.baseline_decoding
    where = (
        f"at the same decoding ({comparison.decoding})"
        if same
        else (f"({comparison.decoding} against {comparison.baseline_decoding})")
    )
    subject = f"{comparison.arm} against {comparison.baseline} {where}"
    if problems < FEW_PROBLEMS:
        return f"pass@{k}: {subject}: {points}; {problems} problems are too few for a verdict."
    if difference.low > 0:
        return f"pass@{k}: {subject} is better by {points}."
    if difference.high < 0:
        return f"pass@{k}: {subject} is worse by {points}."
    return f"pass@{k}: {subject}: no difference can be told: {points}; the interval contains 0."
