"""Evaluate one arm: generations first, saved; then grades -> eval/ARM/SUITE-DECODING.{generations,grades}.jsonl.

The base runs first, on the validation problems over the curve's decodings, of which its best is chosen
(eval/base/best.json), and then on the test problems with every decoding that some student is compared with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlx_ssd import models
from mlx_ssd.errors import BadInput
from mlx_ssd.grading.levels import check_level
from mlx_ssd.layout import BASE, RunFiles
from mlx_ssd.problems import identity, read_problems
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Grade, Problem
from mlx_ssd.sections import ProblemSource
from mlx_ssd.storage import Journal, hash_path, write_atomic

VERSION = 2


def settings(recipe: Recipe) -> dict:
    """Without the decodings: each has files of its own, so that a new one leaves the others as they are."""
    evaluation = recipe.evaluate
    curve = evaluation.curve
    return {
        "seed": recipe.seed,
        "model": recipe.model.model_dump(),
        "prompt": recipe.prompt.settings(),
        "problems": {role: source.model_dump(exclude={"path"}) for role, source in _sources(recipe).items()},
        "evaluate": {
            "samples_per_problem": evaluation.samples_per_problem,
            "curve": {"samples_per_problem": curve.samples_per_problem} if curve else None,
            "max_tokens": evaluation.max_tokens,
            "stop_loops": evaluation.stop_loops and evaluation.stop_loops.model_dump(),
            "limits": evaluation.limits.model_dump(),
        },
    }


def check(recipe: Recipe) -> None:
    check_level(recipe.evaluate.sandbox)
    if recipe.problems.test.source == "rstar_coder":
        return  # looked at when it is there
    tests = read_problems(recipe.problems.test, "test")
    if len(tests) < 2:
        raise BadInput("problems.test: one test problem gives no interval; evaluate needs at least two")
    check_output(tests, recipe.evaluate.limits.output_kb)
    if recipe.evaluate.curve:
        problems = read_problems(recipe.problems.validation, "validation")
        if not all(problem.tests for problem in problems):
            raise BadInput(
                "problems.validation: settings can only be chosen on problems with tests; "
                "give some, or set evaluate.curve to null"
            )
        check_output(problems, recipe.evaluate.limits.output_kb)


def check_output(problems: list[Problem], limit: int, setting: str = "evaluate.limits.output_kb") -> None:
    """Raises BadInput where no program could be right, because the answer is longer than the limit [KB]."""
    for problem in problems:
        for test in problem.tests:
            if "expected" not in test and "stdout" not in test:
                continue  # a check does not say what the whole answer is, and a number is no program's
            answer = test["stdout"] if "stdout" in test else json.dumps(test["expected"])
            if len(answer) > limit * 1024:
                raise BadInput(
                    f"{setting}: a test of problem {problem.id!r} expects an answer of "
                    f"{len(answer) // 1024 + 1} KB, more than the {limit} that a program may print; raise it"
                )


def inputs(recipe: Recipe, files: RunFiles) -> dict[str, str]:
    found = {"model": models.locate(recipe.model).revision}
    if files.arm != BASE:
        found["adapter"] = hash_path(files.adapter)
    for role, source in _sources(recipe).items():
        found[f"problems.{role}"] = identity(source, role)
    return found


def outputs(recipe: Recipe, files: RunFiles) -> list[Path]:
    """Every journal that must be there; the base's best decoding adds its own once it has been chosen."""
    entries = [entry for role in _sources(recipe) for entry in _entries(role, recipe, files)]
    found = [path for entry in entries for path in (entry.generations, entry.grades)]
    return [*found, files.best_decoding] if files.arm == BASE and recipe.evaluate.curve else found


def thrown_away(recipe: Recipe, files: RunFiles) -> list[Path]:
    """What goes with the outputs: the journals of decodings that an earlier recipe asked for."""
    return [files.evaluation]


def run(recipe: Recipe, files: RunFiles) -> dict:
    from mlx_ssd.controls import choose_best, curve_entries

    tokenizer = models.load_tokenizer(models.locate(recipe.model))
    measured = {}
    if recipe.evaluate.curve:
        _take_over(files)
        measured["validation"] = _complete("validation", recipe, files, tokenizer)
        if files.arm == BASE:
            tried = [entry for entry in curve_entries(recipe, files.directory) if entry.label == BASE]
            choose_best([(entry, _pass_rate(entry.grades)) for entry in tried])
    return measured | {"test": _complete("test", recipe, files, tokenizer)}


def _take_over(files: RunFiles) -> None:
    """What the validation of the kept round, or of the base, has drawn and graded already."""
    drawn = RunFiles(files.directory, BASE, number=0).validated if files.arm == BASE else files.validated
    for path in sorted(drawn.glob("*.jsonl")):
        if not (there := files.evaluation / path.name).exists():
            write_atomic(there, path.read_text(encoding="utf-8"))


def _sources(recipe: Recipe) -> dict[str, ProblemSource]:
    sources = {"test": recipe.problems.test}
    if recipe.evaluate.curve and recipe.problems.validation:
        sources["validation"] = recipe.problems.validation
    return sources


def _entries(role: str, recipe: Recipe, files: RunFiles) -> list[Any]:
    """Everything that this arm is decoded with."""
    from mlx_ssd.controls import curve_entries, test_entries

    entries = {"validation": curve_entries, "test": test_entries}[role](recipe, files.directory)
    # The base's best may be the decoding of a student: two lines of the table, one journal.
    return list({entry.generations: entry for entry in entries if entry.files.arm == files.arm}.values())


def _complete(role: str, recipe: Recipe, files: RunFiles, tokenizer: Any) -> dict:
    from mlx_ssd.evaluation import complete

    curve = recipe.evaluate.curve
    samples = curve.samples_per_problem if curve and role == "validation" else recipe.evaluate.samples_per_problem
    return complete(
        [(entry.generations, entry.grades, entry.policy) for entry in _entries(role, recipe, files)],
        read_problems(_sources(recipe)[role], role),
        samples,
        recipe,
        tokenizer,
        None if files.arm == BASE else files.adapter,
        f"{role} {files.arm}",
    )


def _pass_rate(grades: Path) -> float:
    latest = {grade.key: grade.verdict for grade in Journal(grades, Grade).read()}
    counted = [verdict for verdict in latest.values() if verdict != "harness_error"]
    return sum(verdict == "pass" for verdict in counted) / len(counted)
