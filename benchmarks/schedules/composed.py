"""The rounds of a schedule as a decoding rule: what a student of each would do if it had learnt its targets exactly.

    python -m benchmarks.schedules.composed DIR

An ideal student of the base under policy 1 is the base decoded by it; one of that student under policy 2 is the base
decoded by the first and then by the second; the evaluation comes last. That needs no training, and says whether a
round's gain is more than such a rule. A run compares its kept round with it too, but at the round's T_eval; here it has
one of its own. DIR is that of a finished `benchmarks.schedules`, which calls this; the rows go to
DIR/composed.jsonl.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.schedules.design import t_train
from mlx_ssd import models
from mlx_ssd.arms import students
from mlx_ssd.controls import policy_of, suite_name
from mlx_ssd.decoding.policy import DecodingPolicy, StagedPolicy
from mlx_ssd.evaluation import complete
from mlx_ssd.layout import RunFiles, generations_name, grades_name
from mlx_ssd.problems import read_problems
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Grade
from mlx_ssd.scoring import passed
from mlx_ssd.storage import Journal, write_atomic

Row = dict[str, Any]
OF = ("falling",)  # the schedule whose rounds gain; students teach one another there, by soft targets


def rule(schedule: str, rounds: int, sampling: DecodingPolicy, evaluation: DecodingPolicy) -> StagedPolicy:
    """sampling: of which a round changes the temperature."""
    temperatures = (t_train(schedule, number) for number in range(1, rounds + 1))
    taught = (DecodingPolicy(t, sampling.top_k, sampling.top_p, sampling.order) for t in temperatures)
    return StagedPolicy(*taught, evaluation)


def rows(base: int, files: RunFiles, work: Path) -> list[Row]:
    """Of the kept round of each schedule in OF: on the validation problems at its best temperature, as students are,
    and at this one on the test problems."""
    recipe, found = Recipe.load(files.recipe), []
    kept = {arm.name: arm.files.number for arm in students(recipe, files.directory)}
    for schedule in OF:
        number = kept[schedule]
        tried = {
            t: _decoded("validation", schedule, number, t, recipe, work) for t in recipe.evaluate.curve.temperatures
        }
        best = max(tried, key=lambda t: sum(tried[t][1]))  # of equals the first
        on_test = _decoded("test", schedule, number, best, recipe, work)
        row = {"row": "composed", "base": base, "schedule": schedule, "round": number, "temperature": best}
        found += [
            row | {"suite": suite, "n": n, "passes": passes}
            for suite, (n, passes) in (("validation", tried[best]), ("test", on_test))
        ]
    return found


def _decoded(role: str, schedule: str, number: int, t: float, recipe: Recipe, work: Path) -> tuple[int, list[int]]:
    """(samples, passes of each problem)."""
    source = getattr(recipe.problems, role)
    problems, evaluation = read_problems(source, role), recipe.evaluate
    samples = evaluation.curve.samples_per_problem if role == "validation" else evaluation.samples_per_problem
    own = policy_of(evaluation.decoding.model_copy(update={"temperature": t}))
    policy = rule(schedule, number, policy_of(recipe.sample.decoding), own)
    suite = suite_name(source, role)
    paths = work / generations_name(suite, policy.name()), work / grades_name(suite, policy.name())
    tokenizer = models.load_tokenizer(models.locate(recipe.model))
    complete([(*paths, policy)], problems, samples, recipe, tokenizer, None, f"{role} {schedule} {number} T {t:g}")
    counts = passed(problems, list({grade.key: grade for grade in Journal(paths[1], Grade).read()}.values()))
    (n,) = {graded for graded, _ in counts}
    return n, [passes for _, passes in counts]


def main() -> None:
    work = Path(sys.argv[1])
    found = []
    for base, directory in enumerate(sorted((work / "runs").glob("base-*"))):
        found += rows(base, RunFiles(directory), work / "composed" / directory.name)
    write_atomic(work / "composed.jsonl", "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in found))


if __name__ == "__main__":
    main()
