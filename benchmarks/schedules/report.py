"""schedules.jsonl as Markdown: every figure is computed from the rows.

python -m benchmarks.schedules.report benchmarks/results/schedules.jsonl [SVG]
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.effect import intervals
from benchmarks.effect.report import Difference, plain, read, signed, table
from benchmarks.schedules.design import SCHEDULES, t_train
from mlx_ssd.layout import BASE, MAIN
from mlx_ssd.progress import duration
from mlx_ssd.report.figures.rounds import round_figures
from mlx_ssd.report.figures.svg import standalone
from mlx_ssd.statistics import Interval, bootstrap_mean, pass_at_k_per_problem
from mlx_ssd.storage import write_atomic

Row = dict[str, Any]
Key = tuple[str, int]  # a schedule and its round; (base, 0)
ROUND_0: Key = (BASE, 0)
DIVERSITY = ("pass_gap", "distinct", "fork_entropy")


class Results:
    """The rows as arrays in points: [bases, 1, problems], one run a base."""

    def __init__(self, rows: Iterable[Row]):
        self.manifest, *results = rows
        self.bases = sorted({row["base"] for row in results})
        self.rounds: dict[Key, list[Row]] = {}  # a row a base
        self.tests: list[dict[tuple[str, str], Row]] = [{} for _ in self.bases]  # by (schedule, decoding)
        self.composed: dict[tuple[str, str, int], dict[int, Row]] = {}  # by (suite, schedule, round): a row a base
        of_rounds: dict[Key, dict[int, Row]] = {}
        for row in results:
            place = self.bases.index(row["base"])
            if row["row"] == "round":
                _put(of_rounds.setdefault((row["schedule"], row["round"]), {}), place, row)
            elif row["row"] == "composed":
                _put(self.composed.setdefault((row["suite"], row["schedule"], row["round"]), {}), place, row)
            else:
                _put(self.tests[place], (row["schedule"], row["decoding"]), row)
        self.schedules = [name for name in SCHEDULES if (name, 1) in of_rounds]
        self.last = max(number for _, number in of_rounds)
        keys = [ROUND_0, *((name, number) for name in self.schedules for number in range(1, self.last + 1))]
        if not self.schedules or set(keys) != set(of_rounds):
            raise ValueError(f"rows are missing, or of a schedule that is not known: {set(keys) ^ set(of_rounds)}")
        for key in keys:
            if len(found := of_rounds[key]) != len(self.bases):
                raise ValueError(f"rows are missing: {key} is there of {len(found)} of {len(self.bases)} bases")
            self.rounds[key] = [found[place] for place in range(len(self.bases))]
        self._replicates: dict[int, intervals.Replicates] = {}

    def interval(self, values: np.ndarray) -> Interval:
        """Over problems and bases. values [bases, 1, problems]."""
        problems = values.shape[-1]
        if problems not in self._replicates:
            self._replicates[problems] = intervals.draw(len(self.bases), 1, problems)
        return intervals.interval(values, self._replicates[problems])

    def compare(self, values: np.ndarray, baseline: np.ndarray) -> Difference:
        difference = values - baseline
        alone = bootstrap_mean(difference.mean(axis=(0, 1)), intervals.RESAMPLES, level=intervals.LEVEL)
        by_base = tuple(float(mean) for mean in difference.mean(axis=(1, 2)))
        return Difference(self.interval(difference), alone, by_base)

    def of_round(self, key: Key, k: int) -> np.ndarray:
        """pass@k on the validation problems at the round's best temperature."""
        return _points(self.rounds[key], k)

    def between(self, key: Key, before: Key, k: int = 1) -> Difference:
        return self.compare(self.of_round(key, k), self.of_round(before, k))

    def kept(self, schedule: str) -> list[Row]:
        """The schedule's row on the test problems, of each base."""
        return [next(row for key, row in found.items() if key[0] == schedule) for found in self.tests]

    def controls(self, schedule: str) -> dict[str, list[Row]]:
        """What a schedule's kept round is compared with on the test problems, of each base."""
        kept = self.kept(schedule)
        best = [next(row for key, row in found.items() if key[0] == "base-best") for found in self.tests]
        at_same = [found[BASE, row["decoding"]] for found, row in zip(self.tests, kept, strict=True)]
        rules = [{decoding: row for (_, decoding), row in found.items()} for found in self.tests]
        two_stage = [found[row["two_stage"]] for found, row in zip(rules, kept, strict=True)]
        return {"base, same decoding": at_same, "base at its best": best, "two-stage decoding": two_stage}

    def of_test(self, rows: list[Row], k: int) -> np.ndarray:
        return _points(rows, k)


def _put(place: dict, key: Any, row: Row) -> None:
    if key in place:
        raise ValueError(f"two rows for {key}")
    place[key] = row


def _points(rows: list[Row], k: int) -> np.ndarray:
    """pass@k in points [bases, 1, problems] of a row of each base."""
    each = [pass_at_k_per_problem(np.full(len(row["passes"]), row["n"]), np.array(row["passes"]), k) for row in rows]
    return 100 * np.stack(each)[:, None, :]


def outcome(found: Difference) -> str:
    """What a later round is to the first, by the interval over problems and bases and by every base."""
    return {"above": "gains further", "below": "falls below it"}.get(found.verdict(), "is not told from it")


def sentence(results: Results, schedule: str) -> str:
    """Of a schedule: its first round against the base, and each later one against the first."""
    over_base = results.between((schedule, 1), ROUND_0)
    begun = {
        "above": "gains on the base",
        "below": "loses to the base",
        "divided": "differs from the base, but not on every base alike",
        "open": "is not told from the base",
    }[over_base.verdict()]
    later = []
    for number in range(2, results.last + 1):
        further = results.between((schedule, number), (schedule, 1))
        bases = ", ".join(f"{mean:+.1f}" for mean in further.by_base)
        later.append(f"round {number} {outcome(further)} ({signed(further.whole)}; {bases})")
    words = f"- **{schedule}** ({SCHEDULES[schedule].words}): round 1 {begun} ({signed(over_base.whole)})"
    return "; ".join([words, *later]) + "."


def trajectory(results: Results) -> list[str]:
    body = [_trajectory_row(results, key) for key in results.rounds]
    n = results.rounds[ROUND_0][0]["n"]
    header = [
        "", "round", "T_train", "T_eval, base 0 / 1 / 2", "pass@1 %", f"pass@{n} %",
        "pass@1 - base", "- round 1", "- round before", f"pass@{n} - round 1",
    ]  # fmt: skip
    return table(header, body)


def _trajectory_row(results: Results, key: Key) -> list[str]:
    (name, number), rows = key, results.rounds[key]
    n = rows[0]["n"]
    first, before = (name, 1), (name, number - 1)
    later = number > 1
    return [
        name,
        f"{number}",
        f"{t_train(name, number):g}" if number else "",
        " / ".join(_decoding(row) for row in rows),
        plain(results.interval(results.of_round(key, 1))),
        plain(results.interval(results.of_round(key, n))),
        signed(results.between(key, ROUND_0).whole) if number else "",
        signed(results.between(key, first).whole) if later else "",
        signed(results.between(key, before).whole) if later else "",
        signed(results.between(key, first, n).whole) if later else "",
    ]


def _decoding(row: Row) -> str:
    return f"{row['temperature']:g}" + ("" if row["top_p"] == 0.8 else f" (top-p {row['top_p']:g})")


def figure(rows: list[Row]) -> str:
    """pass@1 by round as SVG, drawn as in a run's own report."""
    results = Results(rows)
    points = [
        {"arm": key[0], "round": key[1], "pass_at": {"1": asdict(_share(results.interval(results.of_round(key, 1))))}}
        for key in results.rounds
    ]
    (drawn,) = round_figures({"rounds": points})
    return standalone(drawn)


def _share(points: Interval) -> Interval:
    return Interval(points.mean / 100, points.low / 100, points.high / 100)


def diversity(results: Results) -> list[str]:
    body = []
    for (name, number), rows in results.rounds.items():
        n = rows[0]["n"]
        gap = results.of_round((name, number), n) - results.of_round((name, number), 1)
        before = [row["diversity_of_base"].get("fork_entropy") for row in rows]
        now = [row["diversity"].get("fork_entropy") for row in rows]
        body.append([
            name, f"{number}", plain(results.interval(gap)), _mean(rows, "distinct", 100, ".0f"),
            _mean(rows, "fork_entropy", 1, ".3f"),
            f"{np.mean(now) / np.mean(before):.2f}" if None not in (*now, *before) else "",
        ])  # fmt: skip
    n = results.rounds[ROUND_0][0]["n"]
    header = ["", "round", f"pass@{n} - pass@1", "different answers %", "entropy at forks, nats", "of the base's"]
    return table(header, body)


def _mean(rows: list[Row], kind: str, times: float, form: str) -> str:
    found = [row["diversity"].get(kind) for row in rows]
    return "" if None in found else format(times * float(np.mean(found)), form)


def on_test(results: Results) -> list[str]:
    body = []
    for schedule in results.schedules:
        kept = results.kept(schedule)
        values = results.of_test(kept, 1)
        body.append([
            schedule,
            " / ".join(f"{row['round']}" for row in kept),
            " / ".join(_temperature(row["decoding"]) for row in kept),
            plain(results.interval(values)),
            plain(results.interval(results.of_test(kept, 5))),
            *(
                signed(results.compare(values, results.of_test(rows, 1)).whole)
                for rows in results.controls(schedule).values()
            ),
            _against_main(results, schedule, values),
        ])  # fmt: skip
    best = results.controls(results.schedules[0])["base at its best"]
    body.append([
        "base at its best", "0", " / ".join(_temperature(row["decoding"]) for row in best),
        plain(results.interval(results.of_test(best, 1))), plain(results.interval(results.of_test(best, 5))),
        "", "", "", "",
    ])  # fmt: skip
    header = ["", "kept round, base 0 / 1 / 2", "decoding", "pass@1 %", "pass@5 %"]
    minus = [*results.controls(results.schedules[0]), f"*{MAIN}*"]
    return table([*header, *(f"pass@1 - {name}" for name in minus)], body)


def _against_main(results: Results, schedule: str, values: np.ndarray) -> str:
    """A schedule's kept rounds against those of the one whose temperature stays."""
    if schedule == MAIN or MAIN not in results.schedules:
        return ""
    return signed(results.compare(values, results.of_test(results.kept(MAIN), 1)).whole)


def as_a_rule(results: Results) -> list[str]:
    """The kept rounds of a schedule beside what they are as a decoding rule of the base, on both problem sets."""
    body = []
    for name in results.schedules:
        kept = results.kept(name)
        for suite in ("validation", "test"):
            rules = [results.composed.get((suite, name, row["round"]), {}).get(place) for place, row in enumerate(kept)]
            if rules == [None] * len(rules):
                continue
            if None in rules:
                raise ValueError(f"rows are missing: of {name} as a rule on the {suite} problems")
            validated = [results.rounds[name, row["round"]][place] for place, row in enumerate(kept)]
            body.append(_rule_row(results, suite, name, rules, kept if suite == "test" else validated, kept))
    header = ["problems", "", "round", "T_eval of the rule", "rule, pass@1 %", "student - rule", "rule - base"]
    return table(header, body)


def _rule_row(
    results: Results, suite: str, name: str, rules: list[Row], students: list[Row], kept: list[Row]
) -> list[str]:
    values = _points(rules, 1)
    base = results.rounds[ROUND_0] if suite == "validation" else results.controls(name)["base at its best"]
    return [
        suite,
        name,
        " / ".join(f"{row['round']}" for row in kept),
        " / ".join(f"{row['temperature']:g}" for row in rules),
        plain(results.interval(values)),
        signed(results.compare(_points(students, 1), values).whole),
        signed(results.compare(values, _points(base, 1)).whole),
    ]


def _temperature(decoding: str) -> str:
    return decoding.removesuffix("-k20-p0.8")


def at_edge(results: Results) -> str:
    """Where the best temperature may lie beyond those tried."""
    edges = (min(results.manifest["temperatures"]), max(results.manifest["temperatures"]))
    found = [
        f"{name} round {number}, base {row['base']} (T {row['temperature']:g})"
        for (name, number), rows in results.rounds.items()
        for row in rows
        if row["temperature"] in edges
    ]
    return f"At the edge of the temperatures that were tried: {', '.join(found)}." if found else ""


def render(rows: list[Row]) -> str:
    results = Results(rows)
    manifest, design = results.manifest, results.manifest["design"]
    n = results.rounds[ROUND_0][0]["n"]
    first_test = results.kept(results.schedules[0])[0]
    times = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in manifest["seconds"].items())
    versions = ", ".join(f"{package} {version}" for package, version in manifest["versions"].items())
    problems = len(first_test["passes"])
    lines = [
        "# What does distilling again do, and by which schedule?",
        "",
        f"    {manifest['command']}",
        "",
        f"{len(results.bases)} pre-trained bases of benchmarks/effect, one run each with all schedules as arms; "
        f"{results.last} rounds of {design['prompts']} prompts. Every round is decoded on "
        f"{len(results.rounds[ROUND_0][0]['passes'])} validation problems x {n} samples at each of T "
        f"{', '.join(f'{t:g}' for t in manifest['temperatures'])} and counts at its best one; so does the base "
        f"(round 0), with top-p {' and '.join(f'{p:g}' for p in manifest['base_top_p'])} beside 0.8. Then "
        "the test problems were decoded once, by the round that was kept.",
        "",
        "## Verdict",
        "",
        "By rule: a later round *gains further* on round 1 where the 95 % interval of the paired difference in pass@1, "
        "over problems and bases, excludes zero and every base by itself is above; it *falls below it* where both are "
        "below; else it *is not told from it*. In brackets at the end: each base. These are several comparisons, none "
        "corrected for the others; the test problems below are those of the kept rounds alone.",
        "",
        *(sentence(results, schedule) for schedule in results.schedules),
        "",
        "The embedded model's mistakes are injected by design (benchmarks/results/effect.md says which): this shows "
        "the mechanism, and says nothing about how many rounds a real model takes.",
        "",
        "## Round by round, on validation problems",
        "",
        "![pass@1 by round](schedules.svg)",
        "",
        *trajectory(results),
        "T_eval: the round's best, chosen on these very problems, which favours every round alike. " + at_edge(results),
        "",
        "## The same rounds as a decoding rule",
        "",
        *as_a_rule(results),
        "Of the schedule that gains: the base decoded by every round's sampling policy in turn and then by the "
        "evaluation's, as ideally fitted students would be; nothing is trained. T_eval is the rule's own best on the "
        "validation problems.",
        "",
        "## What is left of diversity",
        "",
        *diversity(results),
        f"Of the answers at T_eval. *Different answers*: of a problem's {n}, token by token. *Entropy at forks*: along "
        "the base's own answers, at the tokens where the base itself has a choice.",
        "",
        "## The kept rounds, on test problems",
        "",
        *on_test(results),
        f"{problems} problems (numbers {manifest['first_problem'] + 1} to {manifest['first_problem'] + problems} of "
        f"{manifest['suite']}) x {first_test['n']} samples. *Base at its best*: the decoding of the highest pass@1 on "
        "validation. *Two-stage decoding*: the base decoded as an ideal student of the kept round's own sampling.",
        "",
        "Intervals are 95 % percentile bootstrap over problems, crossed with one over bases "
        f"(`benchmarks/effect/intervals.py`); over {len(results.bases)} bases with one seed each that is rough.",
        "",
        f"Bases as in benchmarks/effect, revisions {', '.join(manifest['base_revisions'])}. Time, summed over all runs "
        f"(the last process of each stage), {manifest['jobs']} runs side by side, one BLAS thread each: {times}. "
        f"{manifest['machine']['chip']}, {manifest['machine']['cores']} cores, {manifest['machine']['system']}; "
        f"{versions}.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(render(found := read(Path(sys.argv[1]))), end="")
    if len(sys.argv) > 2:
        write_atomic(Path(sys.argv[2]), figure(found))
