"""Complete and grade a problem set under several decodings of one model: what is there stays.

Generations are saved before the first is graded. All decodings go in one pass, so that a prompt is read once
for all of them, and a program that several of them wrote is run once.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlx_ssd import models, thinking
from mlx_ssd.decoding.draw import Policy
from mlx_ssd.errors import WorkFailed
from mlx_ssd.grading import Limits, grade_given
from mlx_ssd.grading.texts import Given, asks_for_a_number, what_is_graded
from mlx_ssd.progress import progress
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Generation, Grade, Problem
from mlx_ssd.sampling.engines import MLX
from mlx_ssd.storage import Journal

AT_ONCE = 32  # answers whose tokens are in memory together
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
        {g.key for g in Journal(path, Generation).each() if (g.model, g.policy) == (revision, policy.name())} >= wanted
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
    """Grade what has no grade yet: pairs are (generations, grades). Raises as `grade_given`; WorkFailed too where a
    problem is left without a single graded sample, for then there is no score of any."""
    of = {problem.id: problem for problem in problems}
    total, waiting, known = 0, [], []
    for number, (generations, grades) in enumerate(pairs):
        known.append({grade.key: grade for grade in Journal(grades, Grade).each()})
        # A journal can hold more than was asked this time, when `problems` are a part of a set.
        asked = (g for g in Journal(generations, Generation).each() if g.problem_id in of)
        # Of an answer only the program stays: with their tokens, those of all decodings can take more than there is.
        while few := list(itertools.islice(asked, AT_ONCE)):
            total += len(few)
            few = [g for g in few if _is_open(of[g.problem_id], known[number].get(g.key))]
            texts = thinking.decode(tokenizer, [g.prompt_ids for g in few], [g.completion_ids for g in few])
            for g, text in zip(few, texts, strict=True):
                problem = of[g.problem_id]
                waiting.append(((number, g.key), problem, what_is_graded(problem, text)))
    if not waiting:
        return
    waiting.sort(key=lambda given: given[0])
    evaluation = recipe.evaluate
    limits = Limits(**evaluation.limits.model_dump())
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(progress(f"grade {label}", total, total - len(waiting), "programs"))
        out = [stack.enter_context(Journal(path, Grade).appending()) for _, path in pairs]

        def record(given: Sequence[Given]) -> None:
            before = total - len(given)
            graded = grade_given(given, limits, evaluation.workers, reuse=evaluation.reuse_grades, before=before)
            stack.callback(graded.close)
            for (number, (problem_id, index)), verdict in graded:
                now = Grade(problem_id=problem_id, sample_index=index, **asdict(verdict))
                if now != known[number].get(now.key):
                    known[number][now.key] = now
                    out[number].add(now)
                bar.update(min(bar.done + 1, total))

        record(waiting)
        # What could not be run may have been so of a moment.
        record([one for one in waiting if known[one[0][0]][one[0][1]].verdict == "harness_error"])
    for grades in known:
        _refuse_lost([grade for grade in grades.values() if grade.problem_id in of], label)


def _is_open(problem: Problem, known: Grade | None) -> bool:
    """Whether an answer is to be graded, be it again: a harness error says nothing about the program, and a number is
    read again, for which nothing is run, since the rules may be others by now. The later grade counts."""
    return known is None or known.verdict == "harness_error" or asks_for_a_number(problem)


def _refuse_lost(grades: Sequence[Grade], label: str) -> None:
    """`grades`: the latest of each answer. Raises WorkFailed for a problem that has harness errors only."""
    told = {grade.problem_id for grade in grades if grade.verdict != "harness_error"}
    lost = [grade for grade in grades if grade.problem_id not in told]
    if not lost:
        return
    first, others = lost[0], len({grade.problem_id for grade in lost}) - 1
    more = f", nor of {others} more problem{'s' if others > 1 else ''}" if others else ""
    raise WorkFailed(
        f"{label}: no sample of problem {first.problem_id!r} could be graded ({first.detail}){more}; run the same "
        "command again, which grades them anew; where it stays so, mend or remove the problem, and as the set is then "
        "another, begin the evaluation anew"
    )
