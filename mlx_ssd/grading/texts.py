"""From the text of an answer to its verdict: the program or the number in it, against the tests of its problem."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from mlx_ssd.errors import WorkFailed
from mlx_ssd.grading.answers import extract_answer
from mlx_ssd.grading.cache import GradeCache
from mlx_ssd.grading.extract import extract_program
from mlx_ssd.grading.grade import check_canaries, grade, grade_many
from mlx_ssd.grading.process import ProcessSandbox
from mlx_ssd.grading.sandbox import Limits
from mlx_ssd.grading.verdict import Verdict

if TYPE_CHECKING:
    from mlx_ssd.records import Problem

HARNESS_ERRORS_ALLOWED = 0.01  # of the answers; more means that the grader, not the programs, is broken

Answer = tuple[Hashable, "Problem", str]
"""(key, problem, text as the model wrote it)"""

Given = tuple[Hashable, "Problem", str | None]
"""(key, problem, what `what_is_graded` finds in the text)"""


def what_is_graded(problem: Problem, text: str) -> str | None:
    """The whole program that `text` comes to, or the number where the tests ask for one; None where there is none."""
    if asks_for_a_number(problem):
        return extract_answer(text)
    return extract_program(text, problem.preamble, problem.stem)


def asks_for_a_number(problem: Problem) -> bool:
    return bool(problem.tests) and "answer" in problem.tests[0]


def grade_answers(answers: Iterable[Answer], *how: Any, **named: Any) -> Iterator[tuple[Hashable, Verdict]]:
    """As `grade_given`, of whole texts."""
    found = [(key, problem, what_is_graded(problem, text)) for key, problem, text in answers]
    yield from grade_given(found, *how, **named)


def grade_given(
    found: Sequence[Given],
    limits: Limits,
    workers: int,
    sandbox: ProcessSandbox | None = None,
    reuse: bool = True,
    before: int = 0,
) -> Iterator[tuple[Hashable, Verdict]]:
    """(key, verdict) of each answer, `workers` programs at a time; those known without running come first.

    A problem without tests gives `ungraded`, or `no_code`. `reuse`: take verdicts of the same program, tests and
    limits from earlier gradings on this machine (`GradeCache`). `before`: how many more answers there are, graded
    already. Raises WorkFailed when the grader is not to be trusted: canaries that come out wrong, or harness errors at
    more than 1 % of all answers.
    """
    sandbox = sandbox or ProcessSandbox()
    items = []
    for key, problem, given in found:
        if not problem.tests:
            yield key, Verdict("no_code" if given is None else "ungraded")
        elif asks_for_a_number(problem):
            yield key, grade(given, None, problem.tests, limits, sandbox)  # nothing is run
        else:
            items.append((key, given, problem.entry_point, problem.tests))
    if not items:
        return
    check_canaries(sandbox, limits)
    broken = 0
    with GradeCache(limits, sandbox.mechanisms()) if reuse else nullcontext() as known:
        for key, verdict in grade_many(items, limits, sandbox, workers, known):
            broken += verdict.verdict == "harness_error"
            if broken > HARNESS_ERRORS_ALLOWED * (before + len(found)):
                raise WorkFailed(
                    f"grading was stopped: {broken} programs could not be run as they should "
                    f"({verdict.detail}); this says nothing about the programs"
                )
            yield key, verdict
