"""Evaluate: generations first, saved; then grades; then scores of base and student at the same decoding.

Writes eval/ARM/SUITE-DECODING.{generations,grades}.jsonl and scores.json. The two arms share the
random stream 'eval' on purpose: common random numbers sharpen the paired difference.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlx_ssd import models
from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.layout import RunFiles
from mlx_ssd.problems import problem_file, read_problems
from mlx_ssd.progress import progress
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Generation, Grade, Problem
from mlx_ssd.storage import Journal, hash_path, write_json

VERSION = 1
STREAM = "eval"
ARMS = ("base", "student")
HARNESS_ERRORS_ALLOWED = 0.01  # of the gradings; more means that the grader, not the programs, is broken


def settings(recipe: Recipe) -> dict:
    return {
        "seed": recipe.seed,
        "model": recipe.model.model_dump(),
        "prompt": recipe.prompt.model_dump(),
        "problems": {"test": recipe.problems.test.model_dump()},
        # `rows` and `workers` change the speed only.
        "evaluate": recipe.evaluate.model_dump(exclude={"rows", "workers"}),
    }


def inputs(recipe: Recipe, files: RunFiles) -> dict[str, str]:
    return {
        "model": models.locate(recipe.model).revision,
        "adapter": hash_path(files.adapter),
        "problems.test": hash_path(problem_file(recipe.problems.test, "test")),
    }


def check(recipe: Recipe) -> None:
    problems = read_problems(recipe.problems.test, "test")
    for problem in problems:
        if not problem.tests:
            raise BadInput(f"problems.test: problem {problem.id!r} has no tests; it cannot be graded")
    if len(problems) < 2:
        raise BadInput("problems.test: one test problem gives no interval; evaluate needs at least two")


def outputs(recipe: Recipe, files: RunFiles) -> list[Path]:
    return [files.directory / "eval", files.scores]


def suite_name(recipe: Recipe) -> str:
    source = recipe.problems.test
    return "embedded-test" if source.source == "embedded" else Path(source.path or "").stem


def run(recipe: Recipe, files: RunFiles) -> dict:
    from mlx_ssd.decoding.policy import DecodingPolicy
    from mlx_ssd.scoring import compare, score

    problems = read_problems(recipe.problems.test, "test")
    policy = DecodingPolicy(**recipe.evaluate.decoding.model_dump())
    where = (suite_name(recipe), policy.name())
    measured = {arm: _generate(recipe, files, arm, where, problems, policy) for arm in ARMS}
    tokenizer = models.load_tokenizer(models.locate(recipe.model))
    generations, grades = {}, {}
    for arm in ARMS:
        generations[arm], grades[arm] = _grade(recipe, files, arm, where, problems, tokenizer)
    scores = {arm: score(arm, *where, problems, generations[arm], grades[arm], recipe.evaluate) for arm in ARMS}
    comparison = compare(
        scores["base"], scores["student"], problems, grades["base"], grades["student"], recipe.evaluate
    )
    write_json(
        files.scores,
        {
            "v": 1,
            "scores": [score.model_dump(mode="json") for score in scores.values()],
            "comparisons": [comparison.model_dump(mode="json")],
        },
    )
    return {"generation": measured}


def _generate(
    recipe: Recipe, files: RunFiles, arm: str, where: tuple[str, str], problems: list[Problem], policy: Any
) -> dict:
    from mlx_ssd.sampling.collect import Target, collect

    path = files.generations(arm, *where)
    source = models.locate(recipe.model)
    adapter = files.adapter if arm == "student" else None
    revision = source.revision if adapter is None else f"{source.revision}+{hash_path(adapter)[:16]}"
    wanted = {(problem.id, i) for problem in problems for i in range(recipe.evaluate.samples_per_problem)}
    if {g.key for g in Journal(path, Generation).read() if g.model == revision} == wanted:
        return {"completions": 0}  # all there: no model is loaded
    model, tokenizer = models.load(source, recipe.model.dtype, adapter)
    return collect(
        [Target(path, policy)],
        Generation,
        problems,
        model,
        tokenizer,
        prompt=recipe.prompt,
        samples_per_problem=recipe.evaluate.samples_per_problem,
        max_tokens=recipe.evaluate.max_tokens,
        rows=recipe.evaluate.rows,
        seed=recipe.seed,
        stream=STREAM,
        revision=revision,
        label=f"evaluate {arm}",
    )


def _grade(
    recipe: Recipe, files: RunFiles, arm: str, where: tuple[str, str], problems: list[Problem], tokenizer: Any
) -> tuple[list[Generation], list[Grade]]:
    """Grade the saved generations that have no grade yet; all generations and grades, by (problem, sample)."""
    from mlx_ssd.grading import Limits, ProcessSandbox, check_canaries, extract_code, grade_many

    generations = sorted(Journal(files.generations(arm, *where), Generation).read(), key=lambda g: g.key)
    journal = Journal(files.grades(arm, *where), Grade)
    # A harness error says nothing about the program: it is graded again, and the later grade counts.
    done = {grade.key for grade in journal.read() if grade.verdict != "harness_error"}
    missing = [g for g in generations if g.key not in done]
    if missing:
        texts = tokenizer.batch_decode([g.completion_ids for g in missing], skip_special_tokens=True)
        of = {problem.id: problem for problem in problems}
        items = [
            (g.key, extract_code(text), of[g.problem_id].entry_point, of[g.problem_id].tests)
            for g, text in zip(missing, texts, strict=True)
        ]
        limits, sandbox = Limits(**recipe.evaluate.limits.model_dump()), ProcessSandbox()
        check_canaries(sandbox, limits)
        broken = 0
        with (
            progress(f"grade {arm}", len(generations), len(done), "programs") as bar,
            journal.appending() as out,
        ):
            for (problem_id, index), verdict in grade_many(items, limits, sandbox, recipe.evaluate.workers):
                broken += verdict.verdict == "harness_error"
                if broken > HARNESS_ERRORS_ALLOWED * len(generations):
                    raise WorkFailed(
                        f"grading was stopped: {broken} programs could not be run as they should "
                        f"({verdict.detail}); this says nothing about the programs"
                    )
                out.add(Grade(problem_id=problem_id, sample_index=index, **asdict(verdict)))
                bar.update(bar.done + 1)
    latest = {grade.key: grade for grade in journal.read()}
    return generations, [latest[g.key] for g in generations]
