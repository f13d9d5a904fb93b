"""Everything the report says, computed from the run's files alone."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from mlx_ssd.layout import BASE, MAIN
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Comparison, Interval
from mlx_ssd.report.prediction import against_plan
from mlx_ssd.report.rounds import said
from mlx_ssd.sections import STAGED

FEW_PROBLEMS = 20  # a percentile bootstrap over fewer is too narrow to judge by
MANY_CUT = 0.5  # of the samples
OTHER_LENGTH = 0.1  # of the baseline's mean tokens; below, a difference is not won by length, whatever goes with it


def facts(
    recipe: Recipe,
    run_dir: str,
    manifest: dict[str, Any],
    scores: dict[str, Any],
    arms: list[dict[str, Any]],
    best: dict[str, Any] | None,
    example: str,
    plan: dict[str, Any] | None = None,
    analysis: dict[str, Any] | None = None,
    rounds: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """The report as plain data. `arms`: of each student, main first, `arm_facts`; `best`: how the base's best
    decoding was chosen; `example`: a prompt to try; `plan`: plan.json, where the run has one; `analysis`:
    analysis.json of each arm that was analysed; `rounds`: `round_facts`, where there are several."""
    comparisons = [Comparison.model_validate(c) for c in scores["comparisons"]]
    measured = {
        name: entry["measured"]
        for name, entry in manifest["stages"].items()
        if "measured" in entry and name != "report"  # this one is not over yet
    }
    seconds: dict[str, float] = defaultdict(float)
    for name, entry in measured.items():
        seconds[name.split(".")[0]] += entry["seconds"]
    planned = {"plan": against_plan(plan, measured)} if plan else {}
    return {
        "v": 2,
        "recipe": recipe.name,
        "model": {
            "path": recipe.model.path,
            "revision": manifest["stages"]["sample"]["made_of"]["inputs"]["model"],
        },
        "evaluate_decoding": recipe.evaluate.decoding.model_dump(),
        "arms": arms,
        "scores": scores["scores"],
        "comparisons": scores["comparisons"],
        "curve": scores["curve"],
        "base_best": best,
        "seconds": {name: round(total, 2) for name, total in seconds.items()},
        **planned,
        **({"analysis": analysis} if analysis else {}),
        **({"rounds": rounds} if rounds else {}),
        "peak_rss_bytes": max(entry["peak_rss_bytes"] for entry in measured.values()),
        "verdict": [
            *verdict(comparisons, scores["scores"][0]["graded_problems"]),
            *without_training(comparisons, scores["scores"][0]["graded_problems"], run_dir),
            *said(rounds or []),
        ],
        "warnings": [*warnings(arms, scores), *of_the_best(recipe, best, scores), *drawn_elsewhere(measured)],
        "not_measured": not_measured(recipe, scores),
        "next": "mlx-ssd try " + shlex.join([run_dir, example.replace("\n", "\\n")]),
    }


def arm_facts(
    name: str,
    recipe: Recipe,
    selection: dict[str, Any],
    curation: dict[str, Any],
    log: list[dict[str, Any]],
    measured: dict[str, Any],
) -> dict[str, Any]:
    """What made one student. `log`: the entries of its training log; `measured`: what the train stage returned."""
    return {
        "name": name,
        "sample_decoding": recipe.sample.decoding.model_dump(),
        "selection": selection,
        "curation": curation,
        "training": {"targets": recipe.train.targets, **training_facts(log), **_of_rows(measured)},
    }


def training_facts(log: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the entries of a training log. Step 0 is the base: it has no loss of its own; nor has a step that was skipped.

    validation: the held-out loss of the base, and the smallest one with its step, whose student was taken.
    """
    steps = [entry for entry in log if entry["step"] > 0]
    losses = [entry["loss"] for entry in steps if "loss" in entry]
    held_out = {entry["step"]: entry["validation"]["loss"] for entry in log if entry.get("validation")}
    found: dict[str, Any] = {"steps": len(steps)}
    if losses:
        tenth = max(1, len(losses) // 10)
        found["loss_first_tenth"] = sum(losses[:tenth]) / tenth
        found["loss_last_tenth"] = sum(losses[-tenth:]) / tenth
    if skipped := len(steps) - len(losses):
        found["skipped_steps"] = skipped
    if held_out:
        best = min(held_out, key=lambda step: held_out[step])
        found["validation"] = {"base": held_out.get(0), "best": held_out[best], "best_step": best}
    return found


def _of_rows(measured: dict[str, Any]) -> dict[str, int]:
    return {name: measured[name] for name in ("rows_dropped", "rows_cut") if measured.get(name)}


def verdict(comparisons: list[Comparison], problems: int) -> list[str]:
    """One sentence for each arm and k: what it beat, what beat it, and from what it could not be told. Then one for
    each comparison that would be judged otherwise at equal length of the answers."""
    by_arm: dict[tuple[str, int], list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        for k in comparison.difference:
            by_arm[comparison.arm, k].append(comparison)
    said = [sentence(arm, k, of_arm, problems) for (arm, k), of_arm in sorted(by_arm.items(), key=lambda i: i[0][1])]
    if problems >= FEW_PROBLEMS:
        said += [text for comparison in comparisons if (text := at_equal_length(comparison))]
    return said


def without_training(comparisons: list[Comparison], problems: int, run_dir: str) -> list[str]:
    """How far staged decoding, which needs no training, has the gain that is shown: it has one of its own where it
    beats the base at its best; where it was not compared with that, or is not told from it, it may have one. Nothing
    where no gain is shown, where the student beats the rule, or where the rule loses to the base."""
    rule = next((c.baseline for c in comparisons if c.arm == MAIN and STAGED.fullmatch(c.baseline)), None)
    found = {
        (c.arm, c.baseline): standing(c.difference[1])
        for c in comparisons
        if c.arm in (MAIN, rule) and 1 in c.difference
    }
    best = "base-best" if any(against == "base-best" for _, against in found) else BASE
    own, beside = found.get((rule, best)), found.get((MAIN, rule))
    gains = "beats" in (found.get((MAIN, best)), own)
    if problems < FEW_PROBLEMS or not gains or own == "loses to" or beside in (None, "beats"):
        return []
    unbeaten = f"{MAIN} is not shown to beat it"
    if own == "beats":
        what = f"beats {best} without training, and {unbeaten}"
    else:
        what = f"may have as much without training: {unbeaten}, but nor is it shown to beat {best}"
    command = shlex.join(["mlx-ssd", "export", run_dir, "--target", "preset"])
    return [f"{rule.capitalize()} decoding {what}. Wherever the decoder is one's own: {command}"]


def sentence(arm: str, k: int, comparisons: list[Comparison], problems: int) -> str:
    """What the differences over so many problems allow to be said of one arm."""
    if problems < FEW_PROBLEMS:
        found = ", ".join(f"{baseline(c)} ({figures(c, k, problems)})" for c in comparisons)
        return f"pass@{k}: {arm} against {found}; {problems} problems are too few for a verdict."
    said = []
    for what in ("beats", "cannot be told from", "loses to"):
        of_kind = [c for c in comparisons if standing(c.difference[k]) == what]
        if of_kind:
            said.append(what + " " + ", ".join(f"{baseline(c)} ({figures(c, k, problems)})" for c in of_kind))
    return f"pass@{k}: {arm} " + "; ".join(said) + "."


def baseline(comparison: Comparison) -> str:
    if comparison.baseline != BASE:
        return comparison.baseline
    return "base at the same decoding" if comparison.decoding == comparison.baseline_decoding else comparison.baseline


def meaning(arm: str) -> str | None:
    """What a control of docs/method.md is, for a reader who does not know its name; None for other arms."""
    if arm == "base-best":
        return "the base at its best decoding, no training"
    if not STAGED.fullmatch(arm):
        return None
    rounds = "" if arm == "two-stage" else ", with a stage for each of its rounds"
    return f"the base decoded as an ideally fitted student would be{rounds}; no training"


def standing(difference: Interval) -> str:
    if difference.low > 0:
        return "beats"
    return "loses to" if difference.high < 0 else "cannot be told from"


def at_equal_length(comparison: Comparison) -> str | None:
    """What the length-controlled difference says; None where that is the same, or where lengths are about equal."""
    controlled = comparison.length_controlled
    if not controlled or standing(controlled.difference) == standing(comparison.difference[1]):
        return None
    change = controlled.arm_tokens / controlled.baseline_tokens - 1
    if abs(change) < OTHER_LENGTH:
        return None
    size = f"{100 * abs(change):.0f} % {'longer' if change > 0 else 'shorter'}"
    return (
        f"pass@1: the answers of {comparison.arm} are {size} than those of {baseline(comparison)}. "
        f"At equal length, by linear regression, {comparison.arm} {standing(controlled.difference)} it "
        f"({points(controlled.difference)}): a reason for doubt, for an answer may also be long or short because it "
        "is wrong."
    )


def figures(comparison: Comparison, k: int, problems: int) -> str:
    """The difference, and beside it what is there: McNemar's p, and how large a difference had to be that cannot be
    told. The verdict stands on the interval alone."""
    difference, detectable = comparison.difference[k], comparison.minimum_detectable_effect or {}
    found = [points(difference)]
    if k == 1 and comparison.mcnemar:
        p = comparison.mcnemar.p
        found.append("McNemar p < 0.001" if p < 0.001 else f"McNemar p = {p:.3f}")
    if problems >= FEW_PROBLEMS and k in detectable and standing(difference) == "cannot be told from":
        found.append(f"80 % power would have needed about ±{100 * detectable[k]:.1f} points")
    return "; ".join(found)


def points(difference: Interval) -> str:
    return f"{100 * difference.mean:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"


def warnings(arms: list[dict[str, Any]], scores: dict[str, Any]) -> list[str]:
    """What a reader must know before believing the table."""
    found = []
    for arm in arms:
        reasons = arm["curation"]["finish_reasons"]
        cut = 1 - reasons.get("stop", 0) / sum(reasons.values())
        if cut >= MANY_CUT:
            found.append(
                f"{100 * cut:.0f} % of the samples of {arm['name']} were cut at sample.max_tokens or in a loop: "
                "they teach no end of turn."
            )
        if arm["selection"].get("select") == "passed":
            found.append(
                "The training prompts were selected by which problems have been solved before (select: passed)."
            )
    for name, count in scores["trained_on"].items():
        if count:
            problems = scores["scores"][0]["problems"]
            found.append(f"{count} of the {problems} test problems were prompts that {name} was trained on.")
    return found


def of_the_best(recipe: Recipe, best: dict[str, Any] | None, scores: dict[str, Any]) -> list[str]:
    """Where base-best may not be the best that the base can do: as a control it is then too weak."""
    if not best or "tried" not in best:
        return []
    found, tried = [], sorted(recipe.evaluate.curve.temperatures)
    if len(tried) > 1 and (chosen := best["decoding"]["temperature"]) in (tried[0], tried[-1]):
        end = "highest" if chosen == tried[-1] else "lowest"
        found.append(
            f"base-best is at T {chosen:g}, the {end} that evaluate.curve tried: one beyond it may be better still."
        )
    of = {(s["arm"], s["decoding"]): s["pass_at"]["1"]["mean"] for s in scores["scores"] if "1" in s["pass_at"]}
    here = next((mean for (arm, _), mean in of.items() if arm == "base-best"), None)
    other = max(((mean, name) for (arm, name), mean in of.items() if arm == BASE), default=(0.0, ""))
    if here is not None and here < other[0]:
        found.append(
            f"On the test problems base-best ({100 * here:.1f} %) is below base at {other[1]} "
            f"({100 * other[0]:.1f} %): it was the best on {best['suite']}, not here. Look at both differences."
        )
    return found


def drawn_elsewhere(measured: dict[str, dict[str, Any]]) -> list[str]:
    """What must be known of samples that a server drew. `measured`: what each unit returned, by name."""
    found = []
    for unit, facts in measured.items():
        if server := facts.get("server"):
            name = " ".join(filter(None, (server["kind"], server["version"])))
            line = f"{unit}: drawn by a server ({name}), whose draws are its own"
            if server["token_ids"] != "given":
                line += "; RE-TOKENIZED from its text, so not surely the tokens that it drew"
            if server["checked"].get("model") == "not looked at":
                line += "; its model was not compared with this one"
            found.append(f"{line}.")
    return found


def not_measured(recipe: Recipe, scores: dict[str, Any]) -> list[str]:
    first, found = scores["scores"][0], []
    untested = first["problems"] - first["graded_problems"]
    if untested == first["problems"]:
        found.append(
            "Whether answers are right: the test problems have no tests. "
            "Lengths, endings and the share with code need none."
        )
    elif untested:
        found.append(f"{untested} of {first['problems']} test problems: they have no tests.")
    found += [line for score in scores["scores"] for line in _ungraded(score, recipe.evaluate.pass_at)]
    if not recipe.evaluate.curve and not recipe.evaluate.base_best:
        found.append(
            "The base at its own best temperature (evaluate.curve chooses it): "
            "part of a difference may be had by decoding alone."
        )
    if not recipe.evaluate.two_stage:
        found.append("The base under two-stage decoding (evaluate.two_stage).")
    found.append("Other training and sampling seeds: the intervals cover the choice of problems only.")
    return found


def lost(score: dict[str, Any]) -> bool:
    """Whether an arm has no score although there are problems with tests: it takes a graded sample of each."""
    return score["graded_problems"] > 1 and not score["pass_at"]


def _ungraded(score: dict[str, Any], ks: Sequence[int]) -> list[str]:
    """Which pass@k an arm does not have because samples could not be graded."""
    missing = sorted(set(ks) - {int(k) for k in score["pass_at"]})
    if score["graded_problems"] < 2 or not missing or not score["verdicts"].get("harness_error"):
        return []
    return [
        f"pass@{missing[0]} of {score['arm']} at {score['decoding']}: fewer than {missing[0]} of its samples of some "
        "problem could be graded. Where you delete its grades in eval, the same command grades them anew."
    ]
