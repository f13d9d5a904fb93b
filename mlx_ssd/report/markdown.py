"""report.json as Markdown."""

from __future__ import annotations

from typing import Any

from mlx_ssd.progress import duration
from mlx_ssd.report.facts import meaning
from mlx_ssd.report.prediction import plan_table
from mlx_ssd.report.rounds import KINDS
from mlx_ssd.sections import STAGED

MOST_LEVELS = 4  # difficulty columns; a set with more kinds of problems gets none

ROUND_DIFFERENCES = {"difference_to_base": "to the base", "difference_to_best_before": "to the best before"}

Table = tuple[list[str], list[list[str]]]


def percent(interval: dict[str, float]) -> str:
    return f"{100 * interval['mean']:.1f} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def points(interval: dict[str, float]) -> str:
    return f"{100 * interval['mean']:+.1f} [{100 * interval['low']:+.1f}, {100 * interval['high']:+.1f}]"


def score_table(facts: dict[str, Any]) -> Table:
    """Header and rows: an arm a row. The columns of difficulty levels are the first pass@k there; at 80
    columns there is no room for more words. Without any pass@k, what needs no tests."""
    ks = _ks(facts)
    if not ks:
        rows = [[name, *_without_tests(score)] for name, score in zip(_names(facts), facts["scores"], strict=True)]
        return ["arm", "with code %", "tokens", "ended by itself %"], rows
    levels = _levels(facts)
    rows = []
    for name, score in zip(_names(facts), facts["scores"], strict=True):
        by_level = score["pass_at_by_difficulty"]
        rows.append(
            [
                name,
                *(percent(score["pass_at"][k]) if k in score["pass_at"] else "-" for k in ks),
                *(f"{100 * by_level[d][ks[0]]:.1f}" if ks and ks[0] in by_level.get(d, {}) else "-" for d in levels),
            ]
        )
    return ["arm", *(f"pass@{k} %" for k in ks), *levels], rows


def _without_tests(score: dict[str, Any]) -> list[str]:
    ended = score["finish_reasons"].get("stop", 0) / sum(score["finish_reasons"].values())
    code = score["extractable_code"]
    return [f"{100 * code:.1f}", f"{score['completion_tokens']:.1f}", f"{100 * ended:.1f}"]


def _names(facts: dict[str, Any]) -> list[str]:
    """Of the lines; where students are decoded at several temperatures, and so a control is there more than once, with
    the last stage's: base t1.35."""
    names = [score["arm"] for score in facts["scores"]]
    if len(set(names)) == len(names):
        return names
    last = (score["decoding"].rsplit("-then-", 1)[-1].split("-")[0] for score in facts["scores"])
    return [f"{name} {temperature}" for name, temperature in zip(names, last, strict=True)]


def difference_table(facts: dict[str, Any]) -> Table:
    """Header and rows: a difference in points a row."""
    ks = _ks(facts)
    rows = [
        [
            f"{comparison['arm']} - {comparison['baseline']}",
            *(points(comparison["difference"][k]) if k in comparison["difference"] else "-" for k in ks),
        ]
        for comparison in facts["comparisons"]
        if comparison["difference"]
    ]
    return ["difference in points", *(f"pass@{k}" for k in ks)], rows


def curve_table(facts: dict[str, Any]) -> Table:
    """Header and rows: a temperature a row, an arm a column, pass@1 on the validation problems."""
    own = facts["evaluate_decoding"]["top_p"]
    columns: dict[str, dict[float, dict[str, float]]] = {}
    for point in facts["curve"]:
        name = point["arm"] if point["top_p"] == own else f"{point['arm']} p{point['top_p']:g}"
        if "1" in point["pass_at"]:
            columns.setdefault(name, {})[point["temperature"]] = point["pass_at"]["1"]
    temperatures = sorted({temperature for column in columns.values() for temperature in column})
    rows = [
        [
            f"{temperature:g}",
            *(f"{100 * c[temperature]['mean']:.1f}" if temperature in c else "-" for c in columns.values()),
        ]
        for temperature in temperatures
    ]
    return ["T", *columns], rows


def round_table(facts: dict[str, Any]) -> Table:
    """Header and rows: a round of an arm a row, on the validation problems; the base once."""
    rounds = _rounds(facts)
    ks = sorted({k for entry in rounds for k in entry["pass_at"]}, key=int)
    kinds = [name for name in KINDS if any(name in entry["diversity"] for entry in rounds)]
    rows = [
        [
            _round_name(entry),
            f"{entry['temperature']:g}",
            *(percent(entry["pass_at"][k]) if k in entry["pass_at"] else "-" for k in ks),
            *(points(entry[name]) if name in entry else "-" for name in ROUND_DIFFERENCES),
            *(f"{entry['diversity'][name]:.3f}" if name in entry["diversity"] else "-" for name in kinds),
        ]
        for entry in rounds
    ]
    differences = list(ROUND_DIFFERENCES.values())
    return ["round", "T", *(f"pass@{k} %" for k in ks), *differences, *(KINDS[name] for name in kinds)], rows


def short_round_table(facts: dict[str, Any]) -> Table:
    """The same for 80 columns."""
    name = "difference_to_best_before"
    rows = [
        [
            _round_name(entry),
            f"{entry['temperature']:g}",
            percent(entry["pass_at"]["1"]),
            points(entry[name]) if name in entry else "-",
        ]
        for entry in _rounds(facts)
    ]
    return ["round", "T", "pass@1 %", ROUND_DIFFERENCES[name]], rows


def _rounds(facts: dict[str, Any]) -> list[dict[str, Any]]:
    rounds = facts.get("rounds") or []
    return [entry for number, entry in enumerate(rounds) if entry["round"] or not number]


def _round_name(entry: dict[str, Any]) -> str:
    kept = " (kept)" if entry.get("kept") else ""
    return f"{entry['arm']}, round {entry['round']}{kept}" if entry["round"] else "base"


def _ks(facts: dict[str, Any]) -> list[str]:
    return sorted({k for score in facts["scores"] for k in score["pass_at"]}, key=int)


def _levels(facts: dict[str, Any]) -> list[str]:
    levels = sorted({d for score in facts["scores"] for d in score["pass_at_by_difficulty"]})
    return levels if len(levels) <= MOST_LEVELS else []


def decoding(settings: dict[str, Any]) -> str:
    order = settings["order"].replace("_", " ")
    return f"T {settings['temperature']:g}, top-k {settings['top_k']}, top-p {settings['top_p']:g} ({order})"


def legend(facts: dict[str, Any]) -> list[str]:
    """What the tables' lines mean, and what the run cost."""
    scores, ks, levels = facts["scores"], _ks(facts), _levels(facts)
    of_levels = f" {' and '.join(levels)}: pass@{ks[0]} by difficulty." if levels and ks else ""
    where = " where no other temperature is named" if _names(facts) != [score["arm"] for score in scores] else ""
    lines = [
        f"{scores[0]['problems']} problems of {scores[0]['suite']}, {scores[0]['samples_per_problem']} samples each, "
        + f"decoded at {decoding(facts['evaluate_decoding'])}{where}; 95 % bootstrap intervals over problems."
        + of_levels
    ]
    if best := facts["base_best"]:
        settings = decoding(best["decoding"])
        same = best["decoding"] == facts["evaluate_decoding"]
        lines.append(
            f"base-best: {settings}, "
            + (f"the best pass@1 of {len(best['tried'])} decodings on {best['suite']}" if "tried" in best else "given")
            + (", which is the very decoding of the students." if same else ".")
        )
    for kind in dict.fromkeys(score["arm"] for score in scores if STAGED.fullmatch(score["arm"])):
        lines.append(f"{kind}: {meaning(kind)}.")
    targets = {"tokens": "the sampled tokens", "distribution": "the distribution that each token was drawn from"}
    lines += [f"{arm['name']}: trained on {targets[arm['training']['targets']]}." for arm in facts["arms"]]
    times = ", ".join(f"{name} {duration(seconds)}" for name, seconds in facts["seconds"].items())
    return [*lines, f"Time: {times}; peak memory {facts['peak_rss_bytes'] / 1e9:.1f} GB."]


def details(facts: dict[str, Any]) -> list[str]:
    """How each line's answers look, and what each student was made of."""
    of_scores = [f"{score['arm']} ({score['decoding']}): {_answers(score)}." for score in facts["scores"]]
    return of_scores + [_made_of(arm) for arm in facts["arms"]]


def _answers(score: dict[str, Any]) -> str:
    shares = [("verdicts", score["verdicts"]), ("ended by", score["finish_reasons"])]
    found = [f"{100 * score['extractable_code']:.1f} % with code, {score['completion_tokens']:.1f} tokens"]
    for name, counts in shares:
        total = sum(counts.values())
        found.append(f"{name} " + ", ".join(f"{100 * n / total:.1f} % {what}" for what, n in counts.items()))
    return "; ".join(found)


def _made_of(arm: dict[str, Any]) -> str:
    curation, training, selection = arm["curation"], arm["training"], arm["selection"]
    dropped = ", ".join(f"{n} {reason}" for reason, n in curation["dropped"].items() if n) or "none"
    prompts = ", ".join(f"{n} {what.replace('_', ' ')}" for what, n in selection.items() if isinstance(n, int) and n)
    return (
        f"{arm['name']}: {curation['kept']:,} of {curation['samples']:,} self-samples drawn at "
        f"{decoding(arm['sample_decoding'])}; dropped: {dropped}; prompts: {prompts}; no answer was checked; "
        f"{_trained(training)}."
    )


def _trained(training: dict[str, Any]) -> str:
    found = [f"{training['steps']} optimizer steps"]
    if skipped := training.get("skipped_steps"):
        found.append(f"{skipped} of them skipped (no finite loss or gradient)")
    if "loss_first_tenth" in training:
        first, last = training["loss_first_tenth"], training["loss_last_tenth"]
        found.append(f"loss {first:.3f} (first tenth) -> {last:.3f} (last tenth)")
    for name, what in (("rows_dropped", "left out"), ("rows_cut", "cut")):
        if name in training:
            found.append(f"{training[name]:,} samples {what} for their length")
    if validation := training.get("validation"):
        base = f"{validation['base']:.3f} (base) -> " if validation["base"] is not None else ""
        found.append(f"held-out loss {base}{validation['best']:.3f} (step {validation['best_step']}, the best)")
    return ", ".join(found)


def _markdown(table: Table) -> list[str]:
    header, rows = table
    if not rows or len(header) == 1:
        return []
    return [
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def render(facts: dict[str, Any]) -> str:
    lines = [
        f"# {facts['recipe']}: base against student",
        "",
        f"Model `{facts['model']['path']}`, revision `{facts['model']['revision']}`.",
        "",
        *_section("", facts["warnings"]),
        *_markdown(score_table(facts)),
        *_markdown(difference_table(facts)),
        *_section("", facts["verdict"]),
    ]
    if rounds := _markdown(round_table(facts)):
        lines += [f"Round by round on {facts['rounds'][0]['suite']}, each at its best temperature there:", "", *rounds]
    if curve := _markdown(curve_table(facts)):
        lines += [f"pass@1 % by temperature on {facts['curve'][0]['suite']}, where settings are chosen:", "", *curve]
    lines += [
        *_section("", [*legend(facts), *details(facts)]),
        *planned(facts),
        *_section("Not measured here:", facts["not_measured"]),
        "Next:",
        "",
        f"    {facts['next']}",
        "",
    ]
    return "\n".join(lines)


def planned(facts: dict[str, Any]) -> list[str]:
    """The plan beside what was measured, of runs that began with one."""
    table = _markdown(plan_table(facts))
    return ["What the plan said (MLX's peak memory; stages' times), and what it took:", "", *table] if table else []


def _section(title: str, items: list[str]) -> list[str]:
    if not items:
        return []
    return [*([title, ""] if title else []), *(f"- {item}" for item in items), ""]
