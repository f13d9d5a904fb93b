"""effect.jsonl as Markdown: every figure is computed from the rows.

python -m benchmarks.effect.report benchmarks/results/effect.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.effect import intervals
from benchmarks.effect.intervals import Scatter, coverage
from mlx_ssd.progress import duration
from mlx_ssd.statistics import Interval, bootstrap_mean, pass_at_k_per_problem

Row = dict[str, Any]
Arm = tuple[str, str]  # (arm, share of the prompts) of students; (control, decoding) of the base's rows
KS = (1, 5)
KIND_NAMES = {"soft": "soft targets", "hard": "hard tokens", "t1": "T = 1 control"}
SHARES = ("1", "1/3", "1/9")
FURTHER = 3.0  # points


@dataclass(frozen=True)
class Difference:
    """arm - baseline in pass@k, in points."""

    whole: Interval  # over problems, bases and seeds
    problems: Interval  # over problems alone, of the mean over bases and seeds
    by_base: tuple[float, ...]

    def verdict(self) -> str:
        """clear: the interval excludes zero and each base by itself is on the same side."""
        for name, low, bases in (
            ("above", self.whole.low, self.by_base),
            ("below", -self.whole.high, [-mean for mean in self.by_base]),
        ):
            if low > 0:
                return name if min(bases) > 0 else "divided"
        return "open"


class Results:
    """The rows as arrays of pass@k, in points: [bases, seeds, problems]."""

    def __init__(self, rows: Iterable[Row]):
        self.manifest, *results = rows
        bases = sorted({row["base"] for row in results})
        seeds = {base: sorted({row["seed"] for row in results if row["base"] == base}) for base in bases}
        self.shape = (len(bases), len(seeds[bases[0]]), len(results[0]["passes"]))
        place = {(base, seed): (b, s) for b, base in enumerate(bases) for s, seed in enumerate(seeds[base])}
        self.n: int = results[0]["n"]
        self.steps: dict[Arm, tuple[int, int]] = {}  # of students: (prompts, optimizer steps)
        self._passes: dict[Arm, np.ndarray] = {}
        for row in results:
            arm = row["arm"], row.get("share", row["decoding"])
            if row["arm"] == "base-best":
                arm = "base-best", ""  # a decoding of its own on each base
            if "steps" in row:
                self.steps[arm] = row["prompts"], row["steps"]
            passes = self._passes.setdefault(arm, np.full(self.shape, -1))
            if row["n"] != self.n or (passes[place[row["base"], row["seed"]]] >= 0).any():
                raise ValueError(f"two rows, or another n, for {arm} of base {row['base']}, seed {row['seed']}")
            passes[place[row["base"], row["seed"]]] = row["passes"]
        if missing := [arm for arm, passes in self._passes.items() if (passes < 0).any()]:
            raise ValueError(f"rows are missing: {missing}")
        self.replicates = intervals.draw(*self.shape)

    @property
    def decoding(self) -> dict[str, str]:
        return self.manifest["decoding"]

    @property
    def students(self) -> list[Arm]:
        return [(kind, share) for kind in KIND_NAMES for share in SHARES if (kind, share) in self._passes]

    def base_like(self, student: Arm) -> Arm:
        """The base at the student's own decoding."""
        return "base", self.decoding[student[0]]

    @property
    def best(self) -> Arm:
        return "base-best", ""

    @property
    def two_stage(self) -> Arm:
        """The ideal student of the training policy, decoded as the soft student."""
        return next(arm for arm in self._passes if arm[0] == "two-stage" and self._decodes_as_soft(arm[1]))

    def _decodes_as_soft(self, name: str) -> bool:
        return name.endswith(f"-then-{self.decoding['soft']}")

    def values(self, arm: Arm, k: int) -> np.ndarray:
        passes = self._passes[arm]
        of_each = pass_at_k_per_problem(np.full(passes.size, self.n), passes.reshape(-1), k)
        return 100 * of_each.reshape(self.shape)

    def score(self, arm: Arm, k: int) -> Interval:
        return intervals.interval(self.values(arm, k), self.replicates)

    def difference(self, arm: Arm, baseline: Arm, k: int) -> Difference:
        values = self.values(arm, k) - self.values(baseline, k)
        alone = bootstrap_mean(values.mean(axis=(0, 1)), intervals.RESAMPLES, level=intervals.LEVEL)
        by_base = tuple(float(mean) for mean in values.mean(axis=(1, 2)))
        return Difference(intervals.interval(values, self.replicates), alone, by_base)

    def comparisons(self) -> list[tuple[str, Arm, Arm]]:
        """(what it is, arm, baseline), students first."""
        found = []
        for student in self.students:
            found += [
                ("base at the same decoding", student, self.base_like(student)),
                ("base at its best", student, self.best),
                ("two-stage decoding", student, self.two_stage),
            ]
        for share in SHARES:
            if {("soft", share), ("hard", share)} <= set(self.students):
                found.append(("hard tokens, same prompts and steps", ("soft", share), ("hard", share)))
        return [*found, ("base at its best", self.two_stage, self.best)]


def name(arm: Arm) -> str:
    if arm[0] in KIND_NAMES:
        return KIND_NAMES[arm[0]] if arm[1] == "1" else f"{KIND_NAMES[arm[0]]}, {arm[1]} of the prompts"
    return {"base-best": "base at its best", "two-stage": "two-stage decoding of the base"}.get(
        arm[0], f"base, {arm[1]}"
    )


def signed(value: Interval) -> str:
    return f"{value.mean:+.1f} [{value.low:+.1f}, {value.high:+.1f}]"


def plain(value: Interval) -> str:
    return f"{value.mean:.1f} [{value.low:.1f}, {value.high:.1f}]"


def table(header: list[str], body: list[list[str]]) -> list[str]:
    rule = "|" + "---|" * len(header)
    return ["| " + " | ".join(header) + " |", rule, *("| " + " | ".join(row) + " |" for row in body), ""]


def sentence(results: Results, arm: Arm, baseline: Arm, against: str, k: int = 1) -> str:
    """What the numbers allow to be said, by rule."""
    difference = results.difference(arm, baseline, k)
    bases = ", ".join(f"{mean:+.1f}" for mean in difference.by_base)
    said = {
        "above": "clear of zero, and above it on every base",
        "below": "clear of zero, and below it on every base",
        "divided": "the interval is clear of zero, but not every base is on that side: not called an effect",
        "open": "not clear of zero: no effect is shown",
    }[difference.verdict()]
    return f"- {name(arm)} against {against}: {signed(difference.whole)} points of pass@{k}; {said} ({bases})."


def verdicts(results: Results) -> list[str]:
    soft, hard = ("soft", "1"), ("hard", "1")
    asked = [
        (soft, results.best, "the base at its best"),
        (soft, results.base_like(soft), "the base at the same decoding"),
        (soft, results.two_stage, "two-stage decoding"),
        (soft, hard, "hard tokens on the same prompts and steps"),
        (hard, results.best, "the base at its best"),
        (hard, results.base_like(hard), "the base at the same decoding"),
        (("t1", "1"), results.base_like(("t1", "1")), "the base at the same decoding"),
        (("t1", "1"), results.best, "the base at its best"),
        (results.two_stage, results.best, "the base at its best"),
        (("soft", "1/3"), results.best, "the base at its best"),
        (("soft", "1/9"), results.best, "the base at its best"),
    ]
    return [sentence(results, *each) for each in asked if each[0] in {*results.students, results.two_stage}]


def scores(results: Results) -> list[str]:
    hard = np.isin(np.arange(results.shape[2]), results.manifest["hard_problems"])
    bases = dict.fromkeys(results.base_like(student) for student in results.students)
    body = []
    for arm in [*bases, results.best, results.two_stage, *results.students]:
        prompts, steps = results.steps.get(arm, ("", ""))
        values = results.values(arm, 1)
        body.append(
            [
                name(arm),
                f"{prompts}",
                f"{steps}",
                results.decoding.get(arm[0], ""),
                plain(results.score(arm, 1)),
                f"{values[..., ~hard].mean():.1f}" if (~hard).any() else "-",
                f"{values[..., hard].mean():.1f}" if hard.any() else "-",
                " / ".join(f"{mean:.1f}" for mean in values.mean(axis=(1, 2))),
                plain(results.score(arm, 5)),
            ]
        )
    header = ["", "prompts", "steps", "decoding", "pass@1 %", "easy", "hard", "base 0 / 1 / 2", "pass@5 %"]
    return table(header, body)


def differences(results: Results, k: int) -> list[str]:
    """Students against the controls: the whole interval."""
    body = []
    for kind, share in results.students:
        student = kind, share
        baselines = [results.base_like(student), results.best, results.two_stage]
        cells = [signed(results.difference(student, baseline, k).whole) for baseline in baselines]
        paired = kind == "soft" and ("hard", share) in results.students
        cells.append(signed(results.difference(student, ("hard", share), k).whole) if paired else "")
        body.append([name(student), *cells])
    columns = ["base, same decoding", "base at its best", "two-stage decoding", "hard tokens, same prompts"]
    return table([f"pass@{k}, points, minus", *columns], body)


def details(results: Results) -> list[str]:
    body = []
    for against, arm, baseline in results.comparisons():
        found = results.difference(arm, baseline, 1)
        by_base = " / ".join(f"{mean:+.1f}" for mean in found.by_base)
        body.append([name(arm), against, signed(found.whole), signed(found.problems), by_base])
    header = ["pass@1, points", "minus", "problems, bases, seeds", "problems alone", "base 0 / 1 / 2"]
    return table(header, body)


def roughness(results: Results) -> str:
    """How often the interval of the question that was asked would hold the truth, if experiments were made again."""
    values = results.values(("soft", "1"), 1) - results.values(results.best, 1)
    scatter = Scatter.of(values)
    held, _ = coverage(scatter, *values.shape)
    further, _ = coverage(replace(scatter, bases=FURTHER), *values.shape)
    return (
        f"Over {results.shape[0]} bases the first is rough. In experiments simulated with what the first line's "
        f"difference scatters by (bases {scatter.bases:.1f} points, single problems {scatter.common:.1f} in common, "
        f"{scatter.of_base:.1f} by base and {scatter.of_run:.1f} by run; benchmarks/effect/intervals.py) it holds the "
        f"truth in {100 * held:.0f} %, and where bases scatter by {FURTHER:g} points in {100 * further:.0f} %; so look "
        "at each base too."
    )


def settings(results: Results) -> list[str]:
    """The frozen decodings, with the value on validation that chose them."""
    frozen = results.manifest["frozen"]
    body = []
    for base in range(results.shape[0]):
        of_base = [point for point in frozen["tried"] if (point["base"], point["arm"]) == (base, "base")]
        best = max(of_base, key=lambda point: point["pass@1"])
        body.append([f"base {base} at its best", best["decoding"], f"{100 * best['pass@1']:.1f}", f"{len(of_base)}"])
    for kind, decoding in results.decoding.items():
        of_kind = [point for point in frozen["tried"] if point["arm"] == kind]
        best = next(point for point in of_kind if point["decoding"] == decoding)
        row = [KIND_NAMES[kind], decoding, f"{100 * best['pass@1']:.1f}", f"{len(of_kind)}"]
        body.append(row)
    return table(["chosen on validation problems", "decoding", "pass@1 % there", "of so many"], body)


def left_out(results: Results) -> str:
    """Which students the experiment could have had and has not."""
    missing = [name((kind, share)) for kind in KIND_NAMES for share in SHARES if (kind, share) not in results.students]
    return f"Left out for want of time: {'; '.join(missing)}. " if missing else ""


def beside_settings(results: Results) -> str:
    """Where a choice may not have been the best there was."""
    manifest = results.manifest
    frozen, temperatures = manifest["frozen"], manifest["temperatures"]
    chosen = {f"base {base} at its best": best["temperature"] for base, best in frozen["base_best"].items()}
    chosen |= {KIND_NAMES[kind]: temperature for kind, temperature in frozen["temperature"].items()}
    edges = (min(temperatures), max(temperatures))
    at_edge = [f"{what} (T {temperature:g})" for what, temperature in chosen.items() if temperature in edges]
    said = f"At the edge of the temperatures that were tried: {', '.join(at_edge)}. " if at_edge else ""
    two_stage = [point for point in frozen["tried"] if point["arm"] == "two-stage"]
    best = max(two_stage, key=lambda point: point["pass@1"])
    shared = next(point for point in two_stage if point["decoding"] == results.two_stage[1])
    return said + (
        f"Two-stage decoding takes the decoding of soft targets, with {100 * shared['pass@1']:.1f} % on validation "
        f"(base 0); the best of its {len(two_stage)} temperatures would have been "
        f"{best['decoding'].split('-then-')[1]} with {100 * best['pass@1']:.1f} %."
    )


def taken_over(manifest: Row) -> list[str]:
    before = manifest.get("taken_over")
    if not before:
        return []
    machine = before["machine"]
    return [
        f"The runs of the first {before['frozen']['design']['seeds']} seeds were made by `{before['command']}` "
        f"({machine['chip']}, {machine['cores']} cores, {machine['system']}); their time is not counted here."
    ]


def render(rows: list[Row]) -> str:
    results = Results(rows)
    manifest = results.manifest
    bases, seeds, problems = results.shape
    noise, design = manifest["noise"], manifest["frozen"]["design"]
    whole = {stage: seconds for part in manifest["seconds"].values() for stage, seconds in part.items()}
    for stage in whole:
        whole[stage] = sum(part.get(stage, 0.0) for part in manifest["seconds"].values())
    times = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in whole.items())
    versions = ", ".join(f"{package} {version}" for package, version in manifest["versions"].items())
    guard = noise["missing_guard"]
    lines = [
        "# Does self-distillation help on the embedded model, and compared with what?",
        "",
        f"    {manifest['command']}",
        "",
        f"{bases} pre-trained bases, each with {seeds} seeds (prompts, sampling, training and evaluation draws), "
        f"{problems} test problems, {results.n} samples each. Settings were chosen on {design['tuning_problems']} "
        f"validation problems x {design['tuning_samples']} samples and frozen; then the test problems were decoded "
        "once.",
        "",
        "## Verdict",
        "",
        "By rule: an effect is called one where the 95 % interval over problems, bases and seeds excludes zero and "
        "every base by itself is on the same side. The first line is the question that was asked; the others stand "
        "beside it, and their number is not corrected for. In brackets at the end: each base.",
        "",
        *verdicts(results),
        "",
        "What this says and does not: the embedded model was trained from scratch on generated programs **whose "
        "mistakes are injected by design**: the operator and the constant of each filter and map expression are "
        f"wrong with {100 * noise['wrong_operator']:g} % and {100 * noise['wrong_constant']:g} %, its variable is "
        f"drawn at random with {100 * noise['random_variable']:g} %, the reduction is drawn anew with "
        f"{100 * noise['random_reduction']:g} %, filter and map are swapped with {100 * noise['swapped_order']:g} %, "
        f"and the guard that hard problems need is missing in {100 * guard**3:.0f} to {100 * guard:.0f} % of their "
        "solutions. The noise was set so that there is room between the base at its best temperature and two-stage "
        "decoding (docs/decisions.md). It shows the mechanism; it says nothing about how much a real model gains.",
        "",
        "## Scores",
        "",
        *scores(results),
        left_out(results)
        + "Easy and hard: pass@1 there; hard problems reduce to one element and need a guard for the empty case. "
        "Smaller shares of the prompts are trained on for the same number of epochs, so with fewer steps.",
        "",
        "- soft targets: trained on the distribution that each token was drawn from; hard tokens: on the token, as in "
        "the paper. Both on one sample a prompt at T 1.6, top-k 20, top-p 0.8.",
        "- T = 1 control: hard tokens, sampled at T 1 without truncation.",
        "- base at its best: the temperature and top-p of the highest pass@1 on validation, for each base by itself.",
        "- two-stage decoding: the base decoded as an ideally fitted student would be, at the decoding of soft "
        "targets; no training.",
        "",
        "## Differences",
        "",
        *differences(results, 1),
        *differences(results, 5),
        "## How much the seeds add",
        "",
        *details(results),
        "Intervals are 95 % percentile bootstrap. *Problems, bases, seeds*: a replicate draws problems, the same for "
        "both sides, and crossed with them bases and in each its seeds, all with replacement "
        "(`benchmarks/effect/intervals.py`). *Problems alone*: of the mean over bases and seeds; it takes these as "
        f"given. {roughness(results)}",
        "",
        "## Settings",
        "",
        *settings(results),
        f"Tried: T {', '.join(f'{t:g}' for t in manifest['temperatures'])}, top-k 20, top-p 0.8; for the bases also "
        f"top-p {' and '.join(f'{p:g}' for p in manifest['base_top_p'])}. The students' temperatures were chosen on "
        "base 0 with a seed that is used for nothing else, and serve all bases; each base has its own best decoding. "
        f"The test problems are numbers {manifest['first_problem'] + 1} to {manifest['first_problem'] + problems} of "
        f"{manifest['suite']}; those before are in `quickstart`, whose results had been seen.",
        "",
        beside_settings(results),
        "",
        "Bases: 0 is the embedded model, the others (`benchmarks/effect/bases`) were made by "
        "`python -m benchmarks.embedded_model.build --seed S --steps 1200 --muon-float32 --out DIR/base-S`; revisions "
        f"{', '.join(manifest['base_revisions'])}.",
        "",
        f"Time, summed over all runs (the last process of each stage), {manifest['jobs']} runs side by side, one "
        f"BLAS thread each: {times}. {manifest['machine']['chip']}, {manifest['machine']['cores']} cores, "
        f"{manifest['machine']['system']}; {versions}.",
        *taken_over(manifest),
        "",
    ]
    return "\n".join(lines)


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    print(render(read(Path(sys.argv[1]))), end="")
