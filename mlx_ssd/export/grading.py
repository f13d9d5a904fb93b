"""Whether an artefact solves as many problems as the student: its own answers beside the student's, graded alike.

Both answer the run's test problems (the embedded ones where fewer than two of those have tests) under the run's
evaluation, with the same uniforms: a model that is the same gives the same answers, and what is left of the difference
in pass@1 is the artefact's doing. Answers stand in RUN/export/.graded, each model's in a folder that is named after its
exact weights and what it was asked: an interrupted grading goes on, and one that was done is not done again.

The interval of the difference says which:

    same     it lies within 2 points on either side
    worse    all of it lies below zero, and its middle more than 2 points: the export fails
    better   all of it lies above zero, and its middle more than 2 points: then it is not the student either, but
             nothing was lost
    open     neither: so few problems cannot tell; the minimum detectable effect says what they could
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlx_ssd import models, pipeline
from mlx_ssd.comparisons import outcome
from mlx_ssd.controls import Entry, policy_of, suite_name
from mlx_ssd.errors import WorkFailed
from mlx_ssd.evaluation import generate, grade
from mlx_ssd.export import Target
from mlx_ssd.export.source import Source
from mlx_ssd.layout import MAIN, RunFiles
from mlx_ssd.problems import identity, read_problems
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Generation, Problem
from mlx_ssd.sampling.engines import MLX
from mlx_ssd.scoring import compare, graded
from mlx_ssd.sections import ProblemSource
from mlx_ssd.storage import Journal, hash_json, hash_path

MARGIN = 0.02  # of pass@1
STUDENT = "adapter-on"


@dataclass(frozen=True)
class GradedFiles(RunFiles):
    """A run's files, but for where completions and grades stand."""

    @property
    def evaluation(self) -> Path:
        return self.directory / "export" / ".graded" / self.arm


def grade_export(source: Source, target: Target, name: str, folder: Path, precision: str) -> dict[str, Any] | None:
    """What verify.json holds as `graded`, in fractions; None where nothing draws from such an artefact in batches.

    Raises as `evaluation.grade`; WorkFailed where an answer could not be graded.
    """
    reader = target.load(source, folder, precision)
    engine = getattr(reader, "engine", None)
    if engine is None:
        return None
    suite, problems = _suite(source.recipe)
    evaluation = source.recipe.evaluate.model_copy(update={"pass_at": (1,)})
    recipe = source.recipe.model_copy(update={"evaluate": evaluation})

    revision, tokenizer = f"{name}:{_revision(folder)}", models.load_generating_tokenizer(source.base)
    artefact = _entry(source, suite, name, revision)
    _complete(artefact, problems, recipe, engine, lambda: (_model(reader), tokenizer), revision)
    reader = None  # so that two models never stand in memory together

    revision = models.revision_of(source.base, source.adapter)  # as the run's own evaluation has it
    student = _entry(source, suite, STUDENT, revision)
    if suite == recipe.problems.test and _is_evaluated(source):
        student = replace(student, files=source.files)

    def load() -> tuple[Any, Any]:
        return models.load(source.base, recipe.model.dtype, source.adapter)

    _complete(student, problems, recipe, MLX, load, revision)
    return _compared(student, artefact, problems, recipe)


def failure(facts: dict[str, Any]) -> str | None:
    """Why such an artefact is not to be shipped; None where nothing was shown to be lost."""
    if facts["verdict"] != "worse":
        return None
    lost = f"no more than {100 * MARGIN:g} points may be lost"
    return f"it solves fewer problems than the student: {in_words(facts)}; {lost}"


def in_words(facts: dict[str, Any]) -> str:
    scores, difference = facts["pass_at_1"], facts["difference"]
    points = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * difference[key] for key in ("mean", "low", "high")))
    return (
        f"pass@1 {100 * scores['artefact']:.1f} % beside {100 * scores['student']:.1f} %, {points} points on "
        f"{facts['problems']} problems, {100 * facts['identical_completions']:.1f} % of the answers the same"
    )


def _model(reader: Any) -> Any:
    """PEFT's wrapper hides what its model can be asked; the adapter's layers stand in that model itself."""
    model = reader.model
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _suite(recipe: Recipe) -> tuple[ProblemSource, list[Problem]]:
    for source in (recipe.problems.test, ProblemSource()):
        problems = read_problems(source, "test")
        if len(graded(problems)) > 1:
            break
    return source, problems


def _entry(source: Source, suite: ProblemSource, who: str, revision: str) -> Entry:
    """The journals of one model, in a folder that is named after all that its answers and grades depend on."""
    recipe = source.recipe
    asked = recipe.evaluate.model_dump(include={"decoding", "max_tokens", "stop_loops", "limits"})
    made_of = [revision, source.base.revision, recipe.model.dtype, identity(suite, "test"), recipe.seed, asked]
    key = hash_json([*made_of, recipe.prompt.settings()])[:16]
    files = GradedFiles(source.files.directory, f"{who}-{key}")
    return Entry(who, files, suite_name(suite, "test"), policy_of(recipe.evaluate.decoding))


def _complete(
    entry: Entry,
    problems: Sequence[Problem],
    recipe: Recipe,
    engine: str,
    load: Callable[[], tuple[Any, Any]],
    revision: str,
) -> None:
    samples, label = recipe.evaluate.samples_per_problem, f"{entry.suite} {entry.label}"
    generate([(entry.generations, entry.policy)], problems, samples, recipe, load, revision, label, engine)
    tokenizer = models.load_tokenizer(models.locate(recipe.model))
    grade([(entry.generations, entry.grades)], problems, recipe, tokenizer, label)


def _is_evaluated(source: Source) -> bool:
    """Whether the run's own evaluation of this student is whole, and of the recipe as it is now."""
    _, plans = pipeline.plan(Recipe.load(source.files.recipe), source.files.directory)
    unit = "evaluate" if source.files.arm == MAIN else f"evaluate.{source.files.arm}"
    return any(plan.name == unit and plan.action == "done" for plan in plans)


def _compared(student: Entry, artefact: Entry, problems: Sequence[Problem], recipe: Recipe) -> dict[str, Any]:
    before, after = (outcome(entry, problems, recipe) for entry in (student, artefact))
    found = compare(before, after, recipe.evaluate)
    if 1 not in found.difference:
        raise WorkFailed(f"{artefact.suite}: the grader failed on every answer to some problem; see {artefact.grades}")
    difference = found.difference[1]
    facts: dict[str, Any] = {"suite": artefact.suite, "decoding": artefact.policy.name()}
    facts |= {"problems": len(after.counts), "samples_per_problem": recipe.evaluate.samples_per_problem}
    scores = {"student": before.score, "artefact": after.score}
    facts["pass_at_1"] = {who: score.pass_at[1].mean for who, score in scores.items()}
    facts["difference"] = difference.model_dump()
    if found.minimum_detectable_effect:
        facts["minimum_detectable_effect"] = found.minimum_detectable_effect[1]
    facts["identical_completions"] = _identical(student.generations, artefact.generations)
    return facts | {"margin": MARGIN, "verdict": verdict(difference.mean, difference.low, difference.high)}


def verdict(mean: float, low: float, high: float) -> str:
    if -MARGIN <= low and high <= MARGIN:
        return "same"
    if abs(mean) > MARGIN and not low <= 0 <= high:
        return "worse" if mean < 0 else "better"
    return "open"


def _identical(student: Path, artefact: Path) -> float:
    """Share of the artefact's completions that are the student's, token for token."""
    of_student = {g.key: g.completion_ids for g in Journal(student, Generation).read()}
    of_artefact = Journal(artefact, Generation).read()
    return sum(g.completion_ids == of_student[g.key] for g in of_artefact) / len(of_artefact)


def _revision(folder: Path) -> str:
    """Names an artefact's exact files, but for what is written about it once it has been graded."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    files = [path for path in files if path.suffix != ".md" and path.name != "verify.json"]
    return hash_json([[str(path.relative_to(folder)), hash_path(path)] for path in files])[:16]
