"""`python -m mlx_ssd.suites QUESTION`: draw and grade what a question asks, in a process of its own.

On Linux the BLAS library must be in place before a process starts, and a Metal out-of-memory abort ends one.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)  # until it can be caught; the parent sends it again

import sys
import warnings
from pathlib import Path

from mlx_ssd import models
from mlx_ssd.child import exit_code
from mlx_ssd.controls import Entry
from mlx_ssd.evaluation import generate, grade
from mlx_ssd.layout import BASE, RunFiles
from mlx_ssd.problems import OtherProblems, identity
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Generation, Grade
from mlx_ssd.storage import Journal, write_records
from mlx_ssd.suites.evaluating import Question


def complete(question: Question) -> None:
    """Arm by arm: generations first, saved; then grades."""
    recipe, problems = question.recipe, question.suite.problems()
    source, trained = models.locate(recipe.model), question.trained()
    tokenizer = models.load_tokenizer(source)
    entries = {entry.generations: entry for entry in question.entries()}  # two lines of the table may share a journal
    for arm in dict.fromkeys(entry.files.arm for entry in entries.values()):
        adapter = None if arm == BASE else trained[arm]
        revision = models.revision_of(source, adapter)
        own = [entry for entry in entries.values() if entry.files.arm == arm]
        if _is_the_runs_own(question):
            for entry in own:
                _take_over(entry, revision)
        label = f"{question.suite.name} {arm}" if question.students else question.suite.name
        generate(
            [(entry.generations, entry.policy) for entry in own],
            problems,
            recipe.evaluate.samples_per_problem,
            recipe,
            lambda adapter=adapter: models.load(source, recipe.model.dtype, adapter),
            revision,
            label,
        )
        grade([(entry.generations, entry.grades) for entry in own], problems, recipe, tokenizer, label)


def _is_the_runs_own(question: Question) -> bool:
    """Whether the run's own evaluation asked the same problems in the same way."""
    if not question.students:
        return False
    run = Recipe.load(RunFiles(question.directory).recipe)
    now, before = question.recipe.evaluate, run.evaluate
    return (
        question.suite.role == "test"
        and question.suite.source.source == run.problems.test.source
        and question.suite.identity() == identity(run.problems.test, "test")
        and (now.max_tokens, now.stop_loops, now.limits) == (before.max_tokens, before.stop_loops, before.limits)
    )


def _take_over(entry: Entry, revision: str) -> None:
    """Begin with what the run has drawn and graded already."""
    if entry.generations.exists():
        return
    files = entry.files
    of_run = RunFiles(files.directory, files.arm)
    drawn, graded = (of(entry.suite, entry.policy.name()) for of in (of_run.generations, of_run.grades))
    generations = [g for g in Journal(drawn, Generation).read() if g.model == revision]
    keys = {generation.key for generation in generations}
    # The generations last: where they are, this is done.
    write_records(entry.grades, [g for g in Journal(graded, Grade).read() if g.key in keys])
    write_records(entry.generations, generations)


if __name__ == "__main__":
    warnings.simplefilter("ignore", OtherProblems)  # the parent has said it, once
    models.without_pytorch()
    sys.exit(exit_code(lambda: complete(Question.load(Path(sys.argv[1])))))
