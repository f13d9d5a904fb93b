"""Complete and grade a problem set under several decodings of one model: what is there stays.

Generations are saved before the first is graded. All decodings go in one pass, so that a prompt is read once
for all of them, and a program that several of them wrote is run once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlx_ssd import models, thinking
from mlx_ssd.decoding.draw import Policy
from mlx_ssd.grading import Limits, grade_answers
from mlx_ssd.progress import progress
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Generation, Grade, Problem
from mlx_ssd.sampling.engines import MLX
from mlx_ssd.storage import Journal

STREAM = "eval"  # shared by all arms on purpose: common random numbers sharpen paired differences


def complete(
    entries: Sequence[tuple[Path, Path, Policy]],
    problems: Sequence[Problem],
    samples_per_problem: int,
    recipe: Recipe,
    tokenizer: Any,
    adapter: Path | None,
    label: str,
) -> dict[str, Any]:
    """Generate and grade what is missing of each (generations, grades, policy), of the recipe's model, or of what
    `adapter` makes of it."""
    source = models.locate(recipe.model)
    measured = generate(
        [(generations, policy) for generations, _, policy in entries],
        problems,
        samples_per_problem,
        recipe,
        lambda: models.load(source, recipe.model.dtype, adapter),
        models.revision_of(source, adapter),
        label,
    )
    grade([(generations, grades) for generations, grades, _ in entries], problems, recipe, tokenizer, label)
    return measured


def generate(
    paths: Sequence[tuple[Path, Policy]],
    problems: Sequence[Problem],
    samples_per_problem: int,
    recipe: Recipe,
    load: Callable[[], tuple[Any, Any]],
    revision: str,
    label: str,
    engine: str = MLX,
) -> dict[str, Any]:
    """Complete each journal under its policy. `load` gives (model, tokenizer) for the engine (`sampling.engines`) and
    is called only if something is missing; `revision` names the model, adapter included."""
    wanted = {(problem.id, index) for problem in problems for index in range(samples_per_problem)}
    if all(
        {g.key for g in Journal(path, Generation).read() if (g.model, g.policy) == (revision, policy.name())} >= wanted
        for path, policy in paths
    ):
        return {"completions": 0, "tokens": 0, "seconds": 0.0}
    from mlx_ssd.distributed.sharing import sharing
    from mlx_ssd.sampling.collect import Target, collect
    from mlx_ssd.sampling.loops import loop_stop_of

    model, tokenizer = load()
    return collect(
        [Target(path, policy) for path, policy in paths],
        Generation,
        problems,
        model,
        tokenizer,
        prompt=recipe.prompt,
        samples_per_problem=samples_per_problem,
        max_tokens=recipe.evaluate.max_tokens,
        rows=recipe.evaluate.rows,
        memory_gb=recipe.evaluate.memory_gb,
        loops=loop_stop_of(recipe.evaluate.stop_loops),
        seed=recipe.seed,
        stream=STREAM,
        revision=revision,
        label=label,
        engine=engine,
        sharing=sharing(),
    )


def grade(
    pairs: Sequence[tuple[Path, Path]], problems: Sequence[Problem], recipe: Recipe, tokenizer: Any, label: str
) -> None:
    """Grade what has no grade yet: pairs are (generations, grades). Raises as `grade_answers`."""
    of = {problem.id: problem for problem in problems}
    total, waiting = 0, []
    for number, (generations_path, grades_path) in enumerate(pairs):
        # A journal can hold more than was asked this time, when `problems` are a part of a set.
        asked = (g for g in Journal(generations_path, Generation).read() if g.problem_id in of)
        generations = sorted(asked, key=lambda g: g.key)
        # A harness error says nothing about the program: it is graded again, and the later grade counts.
        done = {g.key for g in Journal(grades_path, Grade).read() if g.verdict != "harness_error"}
        total += len(generations)
        waiting += [(number, g) for g in generations if g.key not in done]
    if not waiting:
        return
    prompts, completions = [g.prompt_ids for _, g in waiting], [g.completion_ids for _, g in waiting]
    texts = thinking.decode(tokenizer, prompts, completions)
    answers = [((number, g.key), of[g.problem_id], text) for (number, g), text in zip(waiting, texts, strict=True)]
    evaluation = recipe.evaluate
    limits = Limits(**evaluation.limits.model_dump())
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(progress(f"grade {label}", total, total - len(waiting), "programs"))
        out = [stack.enter_context(Journal(path, Grade).appending()) for _, path in pairs]
        graded = grade_answers(answers, limits, evaluation.workers, reuse=evaluation.reuse_grades)
        stack.callback(graded.close)
        for (number, (problem_id, index)), verdict in graded:
            out[number].add(Grade(problem_id=problem_id, sample_index=index, **asdict(verdict)))
            bar.update(bar.done + 1)
