"""The probe's facts in words: what follows from them, tables, and the recipe that they lead to."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlx_ssd.recipe import Recipe
from mlx_ssd.report.markdown import points
from mlx_ssd.sections import Curve

SMALL = 0.01  # a gain below one point is called none
MANY_CUT = 0.5  # of the answers


def verdict(facts: dict[str, Any]) -> list[str]:
    """What follows, sentence by sentence: is there room, what does decoding alone give, what to expect."""
    best, base = facts["policies"][0], facts["base"]
    room, of = facts["room"], "the best of the policies"
    if goes_twice(facts):
        room, of = facts["second_round"]["room"], "two rounds"
    alone = base["gain_of_best_over_own"]
    better_decoding = alone["low"] > 0 and alone["mean"] >= SMALL
    found = f"room of {points(room)} points in pass@1 between the base at its best and {of}"
    if room["high"] < SMALL or (room["low"] <= 0 and room["mean"] < SMALL):
        said = [f"Nothing to gain by self-distillation here: a {found}."]
        if better_decoding:
            said.append("The decoding rule alone is enough; see the next line.")
    elif room["low"] > 0:
        said = [f"Room found, train: a {found}."]
    else:
        said = [f"Perhaps: a {found}, and the interval contains 0; more --problems narrow it."]
    if better_decoding:
        said.append(
            f"Without any training: {_setting(base['best'])} instead of the recipe's {_setting(base['own'])} gives the "
            f"base itself {points(alone)} points."
        )
    said.append(
        f"Two-stage decoding needs no training: {_setting(best['train'])}, then {_setting(best['best'])} on the base "
        f"has {_rates(best['best'])} as it stands; the base at its best ({_setting(base['best'])}) has "
        f"{_rates(base['best'])}. Training only writes that rule into the weights, so that any app has it."
    )
    if second := facts.get("second_round"):
        said.append(_of_second_round(second))
    if room["low"] > 0 and room["high"] >= SMALL:
        said.append(f"As a sampler for mlx-lm it is written by `{preset_command(facts)}`.")
    test, expected = facts["test"], facts["second_round"] if goes_twice(facts) else facts
    said.append(
        f"A student of {'these two rounds' if goes_twice(facts) else 'that policy'} is expected to show "
        f"{points(expected['measured'])} points over the base at its best on "
        f"{test['problems']} test problems x {test['samples_per_problem']}, if training fits perfectly; sampled tokens "
        "as targets, and too little training, give less."
    )
    return said


def goes_twice(facts: dict[str, Any]) -> bool:
    """Whether a second round is shown to add to the best of one."""
    return "second_round" in facts and facts["second_round"]["over_one"]["low"] > 0


def _of_second_round(second: dict[str, Any]) -> str:
    over, then = points(second["over_one"]), second["then"]
    if second["over_one"]["low"] <= 0:
        return f"A second round at T {then['temperature']:g} is not shown to add to the best of one ({over} points)."
    return (
        f"A second round at T {then['temperature']:g} adds {over} points to the best of one: 3-stage decoding, "
        f"{_setting(second['train'])}, then {_setting(then)}, then {_setting(second['best'])}, has "
        f"{_rates(second['best'])} as it stands, without training. The recipe below goes through both rounds; "
        "that they are chosen for what they were shown to add makes these figures a little too high."
    )


def warnings(facts: dict[str, Any]) -> list[str]:
    said = []
    base, best = facts["base"], facts["policies"][0]
    alike = [line["temperature"] for line in base["tried"] if line["top_p"] == base["best"]["top_p"]]
    if base["best"]["temperature"] in (min(alike), max(alike)):
        said.append(
            f"the base does best at the end of the temperatures tried with its top-p ({_setting(base['best'])})"
        )
    for kind, tried in (("two-stage", best), ("3-stage", facts["second_round"] if goes_twice(facts) else None)):
        if tried and tried["at_end_of_grid"]:
            t = tried["best"]["temperature"]
            said.append(f"{kind} decoding does best at the end of those tried (T_eval {t:g})")
    if facts["cut_at_max_tokens"] > MANY_CUT:
        share = 100 * facts["cut_at_max_tokens"]
        said.append(f"{share:.0f} % of the base's answers were cut at evaluate.max_tokens; raise it and probe again")
    if facts["not_graded"]:
        said.append(f"{facts['not_graded']} programs could not be graded and were left out")
    return said


def base_table(facts: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: pass@1 of the base, a top-p a row, a temperature a column."""
    tried = {(line["top_p"], line["temperature"]): line for line in facts["base"]["tried"]}
    temperatures = sorted({t for _, t in tried})
    rows = [
        [f"{p:g}", *(f"{100 * tried[p, t]['pass_at']['1']:.1f}" if (p, t) in tried else "-" for t in temperatures)]
        for p in sorted({p for p, _ in tried})
    ]
    return ["top-p", *(f"T {t:g}" for t in temperatures)], rows


def policy_table(facts: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a policy a row, the one with the most room first; two rounds at the end. Made for 80 columns."""
    ks = list(facts["policies"][0]["best"]["pass_at"])
    second = facts.get("second_round")
    rows = [
        [
            _short(policy["train"]) + (f" {policy['then']['temperature']:g}" if "then" in policy else ""),
            f"{policy['best']['temperature']:g}",
            " / ".join(f"{100 * value:.1f}" for value in policy["best"]["pass_at"].values()),
            points(policy["room"]),
            points(policy["measured"]),
        ]
        for policy in [*facts["policies"], *([second] if second else [])]
    ]
    return ["T,k,p", "T_eval", f"pass@{' / '.join(ks)}", "room", "a test will show"], rows


def legend(facts: dict[str, Any]) -> list[str]:
    return [
        f"{facts['problems']} problems of {facts['suite']}, {facts['samples_per_problem']} samples each; pass@k in %, "
        "differences in points of pass@1 with 95 % intervals.",
        "room: two-stage decoding at its best T_eval less the base at its best, each chosen on one half of the "
        "problems and measured on the other; in the sentences the policy too is so chosen (docs/method.md).",
        *(["The last line is of two rounds, the second at the T_train at its end."] if "second_round" in facts else []),
    ]


def markdown(facts: dict[str, Any]) -> str:
    lines = [f"# Probe of {facts['recipe']}", "", *(f"- {line}" for line in facts["verdict"]), ""]
    lines += [f"- Warning: {warning}." for warning in facts["warnings"]] + [""] * bool(facts["warnings"])
    lines += [
        "The base:",
        "",
        *_pipes(base_table(facts)),
        "",
        "Two-stage decoding after each sampling policy, best first:",
        "",
        *_pipes(policy_table(facts)),
    ]
    return (
        "\n".join([*lines, "", *legend(facts), "", f"Model: {facts['model']['path']}, {facts['model']['revision']}."])
        + "\n"
    )


def show(facts: dict[str, Any], console: Console | None = None) -> None:
    """On the terminal."""
    console = console or Console(highlight=False)
    for title, (header, rows) in (
        (f"{facts['recipe']}: the base, pass@1 %", base_table(facts)),
        ("two-stage decoding (no training) after each policy, best first", policy_table(facts)),
    ):
        grid = Table(title=title, title_justify="left")
        for name in header:
            grid.add_column(name)  # on a narrow terminal an interval goes on two lines, whole
        for row in rows:
            grid.add_row(*map(Text, row))
        console.print(grid)
    for line in [*facts["verdict"], *(f"warning: {warning}" for warning in facts["warnings"]), *legend(facts)]:
        console.print(line, soft_wrap=True, markup=False)
    console.print("Next:")
    console.print(f"  {command(facts)}", soft_wrap=True, markup=False)


def command(facts: dict[str, Any]) -> str:
    return "mlx-ssd run " + shlex.quote(facts["recipe_file"])


def preset_command(facts: dict[str, Any]) -> str:
    return f"mlx-ssd export {shlex.quote(str(Path(facts['recipe_file']).parent))} --target preset"


def recipe_text(recipe: Recipe, facts: dict[str, Any]) -> str:
    """The recipe with the best policy, its T_eval and the base's best written in, and a second round where it is shown
    to add something; its name is its own."""
    twice, base = goes_twice(facts), facts["base"]["best"]
    best = facts["second_round"] if twice else facts["policies"][0]
    settings = recipe.model_dump(mode="json")
    settings["name"] = f"{recipe.name}-probed"
    settings["sample"]["decoding"] = best["train"]
    settings["evaluate"] |= {"decoding": _decoding(best["best"]), "base_best": _decoding(base), "curve": None}
    if twice:
        temperatures = [best["train"]["temperature"], best["then"]["temperature"]]
        settings["rounds"] |= {"count": len(temperatures), "temperatures": temperatures}
        # A curve judges the rounds, each at its own best temperature, and chooses the base's best anew.
        curve = recipe.evaluate.curve or Curve()
        tried = {*curve.temperatures, best["best"]["temperature"], base["temperature"]}
        top_p = {*curve.base_top_p, base["top_p"]} - {best["best"]["top_p"]}
        curve = curve.model_copy(update={"temperatures": tuple(sorted(tried)), "base_top_p": tuple(sorted(top_p))})
        settings["evaluate"] |= {"curve": curve.model_dump(mode="json"), "base_best": None}
    head = (
        f"# {recipe.name}, with the decodings that a probe chose on {facts['problems']} problems of {facts['suite']}.\n"
        f"# room {points(best['room'] if twice else facts['room'])} points in pass@1\n"
    )
    return head + Recipe.model_validate(settings).to_yaml()


def _decoding(line: dict[str, Any]) -> dict[str, Any]:
    return {name: line[name] for name in ("temperature", "top_k", "top_p", "order")}


def _setting(line: dict[str, Any]) -> str:
    order = "" if line["order"] == "temperature_first" else f" ({line['order']})"
    return f"T {line['temperature']:g}, top-k {line['top_k']}, top-p {line['top_p']:g}{order}"


def _short(line: dict[str, Any]) -> str:
    return f"{line['temperature']:g},{line['top_k']},{line['top_p']:g}"


def _rates(line: dict[str, Any]) -> str:
    return ", ".join(f"pass@{k} {100 * value:.1f} %" for k, value in line["pass_at"].items())


def _pipes(table: tuple[list[str], list[list[str]]]) -> list[str]:
    header, rows = table
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
