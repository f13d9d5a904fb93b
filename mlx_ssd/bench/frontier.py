"""Does a small self-distilled model replace a larger one? `mlx-ssd frontier RUN LARGER…`

pass@1 with its interval, on the run's test problems, beside what an answer takes: peak memory, tok/s and, where the
system tells, energy a token. Base and students have the run's own scores. A larger model solves the same problems with
the run's settings, under the run's decoding and under the one that was chosen for the base as its best: both are
shown, and the student is compared with the better of them, so that a choice made on the test problems favours the
larger model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlx_ssd import machine, models
from mlx_ssd.arms import students
from mlx_ssd.bench.comparing import ratio
from mlx_ssd.bench.configurations import OFF, Configuration, Load, Subject, subjects_of
from mlx_ssd.bench.measuring import Row, in_sweeps
from mlx_ssd.comparisons import outcome
from mlx_ssd.controls import BASE_BEST, Entry, test_entries
from mlx_ssd.decoding.policy import StagedPolicy
from mlx_ssd.errors import BadInput, Interrupted
from mlx_ssd.layout import RunFiles
from mlx_ssd.problems import read_problems
from mlx_ssd.progress import progress
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Problem
from mlx_ssd.scoring import Outcome, compare
from mlx_ssd.sections import Decoding
from mlx_ssd.storage import write_atomic, write_json
from mlx_ssd.suites import Suite
from mlx_ssd.suites.evaluating import Question, evaluate_suite

SWEEPS = 5  # over all models; what the machine does meanwhile then falls on all alike


@dataclass(frozen=True)
class Contestant:
    """A line of the table: which weights, asked how, and how well it did."""

    name: str
    role: str  # base, student or larger
    subject: Subject
    outcome: Outcome


def frontier(directory: Path, larger: Sequence[str], load: Load, repetitions: int = 5) -> dict[str, Any]:
    """Write frontier.json, frontier.md and frontier.svg into the run; the facts.

    What a larger model has answered is kept in RUN/frontier; the same command goes on there. Raises BadInput for a
    run that is not evaluated, WorkFailed and Interrupted.
    """
    from mlx_ssd.bench import frontier_words, plots

    files = RunFiles(directory)
    if not files.recipe.exists():
        raise BadInput(f"{directory} is not a run directory; it has no recipe.yaml")
    recipe = Recipe.load(files.recipe)
    problems = read_problems(recipe.problems.test, "test")
    contestants = _of_run(recipe, directory, problems)
    for what in larger:
        (subject,) = subjects_of(what, dtype=recipe.model.dtype)
        contestants += _of_larger(what, subject, recipe, directory, problems)
    machine.keep_awake()
    try:
        rows = _measured(list(dict.fromkeys(c.subject for c in contestants)), load, repetitions)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; what was answered is kept, the same command goes on") from None
    facts = {
        "v": 1,
        "run": recipe.name,
        "problems": len(problems),
        "samples_per_problem": recipe.evaluate.samples_per_problem,
        "lines": [_line(contestant, rows[contestant.subject]) for contestant in contestants],
        "comparisons": _comparisons(contestants, rows, recipe),
    }
    write_json(directory / "frontier.json", facts)
    plots.frontier(facts, directory / "frontier.svg")
    write_atomic(directory / "frontier.md", frontier_words.markdown(facts))
    return facts


def _of_run(recipe: Recipe, directory: Path, problems: Sequence[Problem]) -> list[Contestant]:
    """Base, base at its best and students. Two-stage decoding needs a sampler that no app has, and is left out."""
    entries = [entry for entry in test_entries(recipe, directory) if not isinstance(entry.policy, StagedPolicy)]
    if missing := next((entry for entry in entries if not entry.grades.exists()), None):
        raise BadInput(f"{directory}: {missing.label} is not evaluated yet; run `mlx-ssd run --out {directory}` first")
    (base,) = subjects_of(str(directory), (OFF,))
    weights = {arm.name: subjects_of(str(directory), arm=arm.name)[-1] for arm in students(recipe, directory)}
    found = []
    for entry in entries:
        role, subject = ("student", weights[entry.label]) if entry.label in weights else ("base", base)
        found.append(Contestant(entry.label, role, subject, outcome(entry, problems, recipe)))
    return found


def _of_larger(
    what: str, subject: Subject, recipe: Recipe, directory: Path, problems: Sequence[Problem]
) -> list[Contestant]:
    best = next((entry for entry in test_entries(recipe, directory) if entry.label == BASE_BEST), None)
    decodings = [recipe.evaluate.decoding, *([Decoding(**asdict(best.policy))] if best else [])]
    found = []
    for decoding in dict.fromkeys(decodings):
        question = question_of(what, decoding, recipe, directory / "frontier")
        evaluate_suite(question)
        entry: Entry = replace(question.entries()[0], label=subject.name)
        found.append(Contestant(subject.name, "larger", subject, outcome(entry, problems, question.recipe)))
    return found


def question_of(what: str, decoding: Decoding, recipe: Recipe, folder: Path) -> Question:
    """The run's test problems for another model, in the run's words and with its limits."""
    evaluation = recipe.evaluate.model_copy(
        update={"decoding": decoding, "curve": None, "base_best": None, "two_stage": False}
    )
    model = recipe.model.model_copy(update={"path": what, "revision": None})
    asked = recipe.model_copy(update={"model": model, "arms": (), "evaluate": evaluation})
    name = what if what == "embedded" or models.is_hub_name(what) else Path(what).expanduser().resolve().name
    suite = Suite(recipe.problems.test.source, recipe.problems.test)
    out = folder / name.replace("/", "-") / f"T{decoding.temperature:g}-k{decoding.top_k}-p{decoding.top_p:g}"
    return Question(out, suite, asked, students=False, controls=False)


def _measured(subjects: Sequence[Subject], load: Load, repetitions: int) -> dict[Subject, Row]:
    """In turns, so that what else the machine does falls on all alike."""
    found, sweeps = [], min(SWEEPS, repetitions)
    with progress("bench", sweeps * len(subjects), 0, "measurements") as bar:
        for done, row in enumerate(in_sweeps([Configuration(s, load) for s in subjects], repetitions, sweeps), start=1):
            if row is None:
                bar.update(done, "")
            else:
                found.append(row)
    return dict(zip(subjects, found, strict=True))


def _line(contestant: Contestant, row: Row) -> dict[str, Any]:
    score = contestant.outcome.score
    found = {"name": contestant.name, "role": contestant.role, "decoding": score.decoding}
    if 1 in score.pass_at:
        found["pass_at_1"] = score.pass_at[1].model_dump()
    return found | {"completion_tokens": score.completion_tokens, "speed": row}


def _comparisons(
    contestants: Sequence[Contestant], rows: dict[Subject, Row], recipe: Recipe
) -> list[dict[str, Any]]:
    """Of base and students with each larger model at the better of its decodings."""
    found = []
    for name in dict.fromkeys(c.name for c in contestants if c.role == "larger"):
        best = max((c for c in contestants if c.name == name and c.role == "larger"), key=_pass_at_1)
        for small in (c for c in contestants if c.role != "larger"):
            difference = compare(best.outcome, small.outcome, recipe.evaluate).difference.get(1)
            if difference is None:
                continue
            ours, theirs = rows[small.subject], rows[best.subject]
            of = {"small": small.name, "larger": name, "larger_decoding": best.outcome.score.decoding}
            of |= {"difference": difference.model_dump()}
            of |= {"memory_ratio": ours["mlx_peak_bytes"] / theirs["mlx_peak_bytes"]}
            if faster := ratio(theirs["series"]["decode_tps"], ours["series"]["decode_tps"]):
                of |= {"decode_ratio": {"mean": faster.mean, "low": faster.low, "high": faster.high}}
            found.append(of)
    return found


def _pass_at_1(contestant: Contestant) -> float:
    of = contestant.outcome.score.pass_at.get(1)
    return of.mean if of else -1.0
