"""From run directories to results: the frozen settings, and one row for each model under each decoding."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from benchmarks.effect.design import KINDS, Design, student_name, students
from mlx_ssd.arms import students as trained_arms
from mlx_ssd.controls import Entry, policy_of, test_entries
from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.layout import BASE, RunFiles
from mlx_ssd.problems import read_problems
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Grade, Problem
from mlx_ssd.scoring import passed
from mlx_ssd.sections import Decoding
from mlx_ssd.storage import Journal, read_json

Row = dict[str, Any]


def freeze(design: Design, tuned: list[RunFiles]) -> dict[str, Any]:
    """The settings that the test problems are decoded with, from the tuning run of each base: each base's best
    decoding, and each kind of student's best temperature on base 0; of equals the first tried."""
    tried: list[Row] = []
    base_best = {}
    for base, files in enumerate(tuned):
        found = read_json(RunFiles(files.directory, BASE).best_decoding)
        base_best[str(base)] = found["decoding"]
        tried += [{"base": base, "arm": BASE, **point} for point in found["tried"]]
    kinds = {student_name(kind, "1"): kind for kind in KINDS}
    temperature: dict[str, float] = {}
    best: dict[str, float] = {}
    for point in read_json(tuned[0].scores)["curve"]:
        if point["arm"] == BASE:
            continue
        value = point["pass_at"]["1"]["mean"]
        kind = kinds.get(point["arm"], point["arm"])
        tried.append({"base": 0, "arm": kind, "decoding": point["decoding"], "pass@1": value})
        if kind in KINDS and value > best.get(kind, -1.0):
            best[kind], temperature[kind] = value, point["temperature"]
    return {"v": 1, "design": asdict(design), "base_best": base_best, "temperature": temperature, "tried": tried}


def rows(base: int, seed: int, files: RunFiles) -> list[Row]:
    """What a finished run found on the test problems: passes of n, a problem each, in the order of the file.

    A student is named by its kind (soft, hard, t1) and share of the prompts; the base's rows by their control.
    Raises WorkFailed where a completion has no verdict.
    """
    recipe = Recipe.load(files.recipe)
    problems = read_problems(recipe.problems.test, "test")
    arms = {arm.name: arm for arm in trained_arms(recipe, files.directory)}
    found = []
    for entry in test_entries(recipe, files.directory):
        row: Row = {"row": "result", "base": base, "seed": seed, "arm": entry.label}
        if entry.label in arms:
            kind, share = students()[entry.label]
            arm = arms[entry.label]
            steps = len(arm.files.training_log.read_text(encoding="utf-8").splitlines())
            row |= {"arm": kind, "share": share, "prompts": arm.recipe.problems.train.limit, "steps": steps}
        n, passes = passes_of(entry, problems)
        found.append(row | {"decoding": entry.policy.name(), "suite": entry.suite, "n": n, "passes": passes})
    return found


def passes_of(entry: Entry, problems: list[Problem]) -> tuple[int, list[int]]:
    """(samples of each problem, passes by problem) of an entry. Raises WorkFailed where a completion has no verdict."""
    latest = {grade.key: grade for grade in Journal(entry.grades, Grade).read()}
    counts = passed(problems, list(latest.values()))
    samples = {n for n, _ in counts}
    if len(samples) != 1:
        raise WorkFailed(f"{entry.grades}: some programs have no verdict; remove that file, then run again")
    return samples.pop(), [passes for _, passes in counts]


def take_over(known: list[Row], design: Design, revisions: list[str]) -> dict[str, Any]:
    """The settings that an experiment of fewer seeds was frozen at, for this one. Raises BadInput where that was of
    other bases, or differs in more than the number of seeds."""
    before = known[0]
    if before["base_revisions"] != revisions:
        raise BadInput(f"--known is of other bases ({', '.join(before['base_revisions'])})")
    if before["frozen"]["design"] | {"seeds": design.seeds} != asdict(design):
        raise BadInput(f"--known is of another design ({before['frozen']['design']})")
    return before["frozen"] | {"design": asdict(design)}


def manifest(
    revisions: list[str],
    frozen: dict[str, Any],
    runs: list[RunFiles],
    tuned: list[RunFiles],
    more: dict[str, Any],
    known: list[Row],
) -> Row:
    """The first row of the results: how they were made. `more`: what only the caller knows; `known`: results that
    were taken over, whose manifest is kept in this one."""
    first = read_json(runs[0].manifest)
    problems = read_problems(Recipe.load(runs[0].recipe).problems.test, "test")
    return {
        "row": "manifest",
        "v": 1,
        **more,
        "versions": first["versions"],
        "machine": first["machine"],
        "base_revisions": revisions,
        "frozen": frozen,
        "decoding": {
            kind: policy_of(Decoding(temperature=temperature)).name()
            for kind, temperature in frozen["temperature"].items()
        },
        "hard_problems": [number for number, problem in enumerate(problems) if problem.difficulty == "hard"],
        "seconds": {"tuning": seconds_of(tuned), "runs": seconds_of(runs)},
        **({"taken_over": known[0]} if known else {}),
    }


def seconds_of(runs: list[RunFiles]) -> dict[str, float]:
    """Of each stage, summed over runs and arms."""
    total: dict[str, float] = {}
    for files in runs:
        for unit, entry in read_json(files.manifest)["stages"].items():
            stage = unit.split(".")[0]
            total[stage] = round(total.get(stage, 0.0) + entry["measured"]["seconds"], 1)
    return total
