"""From run directories to results: one row for each round on the validation problems, and for each model on the test
problems."""

from __future__ import annotations

from typing import Any

from benchmarks.effect.collect import passes_of, seconds_of
from mlx_ssd import arms
from mlx_ssd.controls import ideal_student, policy_of, suite_name, test_entries
from mlx_ssd.errors import WorkFailed
from mlx_ssd.layout import RunFiles
from mlx_ssd.problems import read_problems
from mlx_ssd.recipe import Recipe
from mlx_ssd.rounds import validations
from mlx_ssd.storage import read_json

Row = dict[str, Any]


def rows(base: int, files: RunFiles) -> list[Row]:
    """What a finished run found. A row holds passes of n, a problem each, in the order of the file.

    Rows `round` are on the validation problems, at the round's best temperature; the base is round 0. Rows `test` are
    on the test problems: of a schedule the kept round, with the names of the decodings of its two controls.
    Raises WorkFailed where a completion has no verdict, or a round is missing.
    """
    recipe, directory = Recipe.load(files.recipe), files.directory
    found: list[Row] = []
    for arm in arms.students(recipe, directory):
        rounds = validations(directory, arm.name)
        if len(rounds) != 1 + arm.recipe.rounds.last:
            raise WorkFailed(f"{directory}: {arm.name} has {len(rounds) - 1} rounds; run the same command again")
        found += [_round(base, each) for each in (rounds if not found else rounds[1:])]
    return found + _test(base, recipe, files)


def _round(base: int, validation: Row) -> Row:
    counts = validation["counts"]
    samples = {n for n, _ in counts}
    if len(samples) != 1:
        which = f"base {base}, {validation['arm']}, round {validation['round']}"
        raise WorkFailed(f"{which}: some programs have no verdict; remove its grades, then run again")
    return {
        "row": "round",
        "base": base,
        "schedule": validation["arm"],
        "round": validation["round"],
        "temperature": validation["decoding"]["temperature"],
        "top_p": validation["decoding"]["top_p"],
        "tried": [[point["decoding"], point["pass@1"]] for point in validation["tried"]],
        "n": samples.pop(),
        "passes": [passes for _, passes in counts],
        "diversity": validation["diversity"],
        "diversity_of_base": validation["diversity_of_base"],
    }


def _test(base: int, recipe: Recipe, files: RunFiles) -> list[Row]:
    problems = read_problems(recipe.problems.test, "test")
    students = {arm.name: arm for arm in arms.students(recipe, files.directory)}
    found = []
    for entry in test_entries(recipe, files.directory):
        row: Row = {"row": "test", "base": base, "schedule": entry.label, "decoding": entry.policy.name()}
        if arm := students.get(entry.label):
            decoding = policy_of(arm.recipe.evaluate.decoding)
            rule = ideal_student(arm, decoding)
            row |= {"round": arm.files.number, "two_stage": rule and rule.name()}
        n, passes = passes_of(entry, problems)
        found.append(row | {"n": n, "passes": passes})
    return found


def manifest(runs: list[RunFiles], more: Row) -> Row:
    """The first row of the results: how they were made. more: what only the caller knows."""
    first, recipe = read_json(runs[0].manifest), Recipe.load(runs[0].recipe)
    return {
        "row": "manifest",
        "v": 1,
        **more,
        "suite": suite_name(recipe.problems.test, "test"),
        "first_problem": recipe.problems.test.skip,
        "versions": first["versions"],
        "machine": first["machine"],
        "seconds": seconds_of(runs),
    }
