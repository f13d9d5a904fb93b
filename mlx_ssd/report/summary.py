"""The report in four short answers: what was found, how sure that is, what explains it, what it cost.

In the words of `facts`, of the main student and the smallest k alone; all the rest stands further down in the report.
"""

from __future__ import annotations

from typing import Any

from mlx_ssd.layout import BASE
from mlx_ssd.progress import duration
from mlx_ssd.records import Comparison
from mlx_ssd.report.facts import FEW_PROBLEMS, baseline, lost, meaning, points, sentence, standing

QUESTIONS = {
    "verdict": "What was found",
    "sure": "How sure",
    "explained": "What explains it",
    "cost": "What it cost",
}



def summary(report: dict[str, Any]) -> dict[str, list[str]]:
    """Sentences for each of QUESTIONS. `report`: report.json."""
    controls = of_controls(report)
    return {
        "verdict": [short_verdict(report, controls)],
        "sure": _sure(report, controls),
        "explained": _explained(report, controls),
        "cost": [cost(report)],
    }


def main_arm(report: dict[str, Any]) -> str:
    return report["arms"][0]["name"]


def smallest_k(report: dict[str, Any]) -> int | None:
    """None where nothing could be graded."""
    return min((int(k) for c in report["comparisons"] for k in c["difference"]), default=None)


def of_controls(report: dict[str, Any]) -> list[Comparison]:
    """The main student with each control that was measured; the base at the same decoding first."""
    arm, students, k = main_arm(report), {arm["name"] for arm in report["arms"]}, smallest_k(report)
    found = [Comparison.model_validate(comparison) for comparison in report["comparisons"]]
    found = [c for c in found if c.arm == arm and c.baseline not in students and k in c.difference]
    return sorted(found, key=lambda c: not _is_same_decoding(c))


def best_control(report: dict[str, Any], controls: list[Comparison]) -> Comparison | None:
    """With the highest score, of those that are more than the base at the same decoding; that where it is alone."""
    others = [c for c in controls if not _is_same_decoding(c)] or controls
    return max(others, key=lambda c: control_score(report, c)["mean"], default=None)


def control_score(report: dict[str, Any], comparison: Comparison) -> dict[str, float]:
    """pass@k of the comparison's baseline, with its interval."""
    return _score(report, comparison.baseline, comparison.baseline_decoding)


def short_verdict(report: dict[str, Any], controls: list[Comparison]) -> str:
    """`facts.sentence` of the base at the same decoding and the best control, without p-values and powers."""
    if not controls:
        return f"No verdict: {_why_not(report)}"
    best = best_control(report, controls)
    named = list({id(c): c for c in (controls[0], best) if c}.values())
    bare = [c.model_copy(update={"mcnemar": None, "minimum_detectable_effect": None}) for c in named]
    return sentence(main_arm(report), smallest_k(report), bare, report["scores"][0]["graded_problems"])


def _why_not(report: dict[str, Any]) -> str:
    """Why nothing can be compared."""
    if found := next((score for score in report["scores"] if lost(score)), None):
        return f"of some problem no sample of {found['arm']} could be graded."
    graded = report["scores"][0]["graded_problems"]
    return "the test problems have no tests." if not graded else f"only {graded} of the test problems has tests."


def _sure(report: dict[str, Any], controls: list[Comparison]) -> list[str]:
    first = report["scores"][0]
    over = f"95 % intervals over {first['graded_problems']} problems, {first['samples_per_problem']} samples each"
    if not controls:
        return ["Nothing could be compared, so nothing can be told."]
    k = smallest_k(report)
    if first["graded_problems"] < FEW_PROBLEMS:
        return [f"{over}: too few for a verdict."]
    untold = [baseline(c) for c in controls if standing(c.difference[k]) == "cannot be told from"]
    said = [f"{over}; not over other seeds."]
    said.append(f"Not told from: {', '.join(untold)}." if untold else "Told from every control that was measured.")
    needed = [c.minimum_detectable_effect[k] for c in controls if k in (c.minimum_detectable_effect or {})]
    if needed:
        said.append(f"Smallest difference found with 80 % power: about ±{100 * max(needed):.1f} points.")
    return said


def _explained(report: dict[str, Any], controls: list[Comparison]) -> list[str]:
    best, k = best_control(report, controls), smallest_k(report)
    if best is None:
        return ["No control could be compared."]
    score = control_score(report, best)
    what = meaning(best.baseline)
    said = (
        f"Best control: {baseline(best)}{f' ({what})' if what else ''}, pass@{k} {_percent(score)}; "
        f"{best.arm} {standing(best.difference[k])} it ({points(best.difference[k])})"
    )
    if _is_same_decoding(best):
        return [f"{said}. The base at its best decoding and in two stages was not measured."]
    return [f"{said}{'' if standing(best.difference[k]) == 'beats' else ': decoding alone may do as much'}."]


def cost(report: dict[str, Any]) -> str:
    seconds, peak = sum(report["seconds"].values()), report["peak_rss_bytes"]
    return f"{duration(seconds)}, at most {peak / 1e9:.1f} GB of memory; energy was not measured."


def _is_same_decoding(comparison: Comparison) -> bool:
    return comparison.baseline == BASE and comparison.decoding == comparison.baseline_decoding


def _score(report: dict[str, Any], arm: str, decoding: str) -> dict[str, float]:
    k = str(smallest_k(report))
    return next(s["pass_at"][k] for s in report["scores"] if s["arm"] == arm and s["decoding"] == decoding)


def _percent(interval: dict[str, float]) -> str:
    return f"{100 * interval['mean']:.1f} % [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"
