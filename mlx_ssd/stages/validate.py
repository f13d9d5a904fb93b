"""Validate: a round on the validation problems, by which it is decided on (rounds.py) -> round-N/validation{.json,/}.

Only where a recipe has more than one round. Round 0 is the base.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mlx_ssd import models, rounds
from mlx_ssd.errors import BadInput
from mlx_ssd.layout import BASE, MAIN, RunFiles, generations_name, grades_name
from mlx_ssd.problems import identity, read_problems
from mlx_ssd.recipe import Recipe
from mlx_ssd.sections import Decoding
from mlx_ssd.storage import hash_path, write_json

VERSION = 1
FORK_TOKENS = 50_000  # of the base's answers, on which entropy at forks is measured


def settings(recipe: Recipe) -> dict:
    evaluation = recipe.evaluate
    return {
        "seed": recipe.seed,
        "model": recipe.model.model_dump(),
        "prompt": recipe.prompt.settings(),
        "problems": {"validation": recipe.problems.validation.model_dump(exclude={"path"})},
        "evaluate": {
            "decoding": evaluation.decoding.model_dump(),
            "curve": evaluation.curve.model_dump(),
            "max_tokens": evaluation.max_tokens,
            "stop_loops": evaluation.stop_loops and evaluation.stop_loops.model_dump(),
            "limits": evaluation.limits.model_dump(),
            "bootstrap_resamples": evaluation.bootstrap_resamples,
        },
    }


def check(recipe: Recipe) -> None:
    """Whether there are validation problems to decide by, and training problems for every round."""
    if len(read_problems(recipe.problems.validation, "validation")) < 2:
        raise BadInput("problems.validation: one problem gives no interval; rounds need at least two")
    if recipe.rounds.prompts != "fresh" or recipe.problems.train.source == "rstar_coder":
        return
    train, last = recipe.problems.train, recipe.rounds.last
    every = read_problems(train.model_copy(update={"skip": 0, "limit": None}), "train")
    if train.skip + last * train.limit > len(every):
        raise BadInput(
            f"rounds.prompts fresh: {last} rounds of {train.limit} problems, after the first {train.skip}, are more "
            f"than the {len(every)} there are; lower problems.train.limit, or the number of rounds"
        )


def inputs(recipe: Recipe, files: RunFiles) -> dict[str, str]:
    found = {
        "model": models.locate(recipe.model).revision,
        "problems.validation": identity(recipe.problems.validation, "validation"),
    }
    if files.arm != BASE:
        found["adapter"] = hash_path(files.adapter)
        found |= {f"validation of round {n}": hash_path(path.validation) for n, path in enumerate(_earlier(files))}
    return found


def outputs(recipe: Recipe, files: RunFiles) -> list[Path]:
    return [files.validation, files.validated]


def run(recipe: Recipe, files: RunFiles) -> dict:
    from mlx_ssd.controls import suite_name
    from mlx_ssd.evaluation import complete
    from mlx_ssd.records import Generation, Grade
    from mlx_ssd.scoring import passed
    from mlx_ssd.storage import Journal, read_json
    from mlx_ssd.validation import differences, diversity, measured

    is_base, resamples = files.arm == BASE, recipe.evaluate.bootstrap_resamples
    problems = read_problems(recipe.problems.validation, "validation")
    suite, policies = suite_name(recipe.problems.validation, "validation"), _policies(recipe, is_base)
    journals = [
        (files.validated / generations_name(suite, p.name()), files.validated / grades_name(suite, p.name()))
        for p in policies
    ]
    tokenizer = models.load_tokenizer(models.locate(recipe.model))
    label = " ".join(["validation", *([files.arm] if files.arm != MAIN else []), *rounds.label(files)])
    adapter, samples = None if is_base else files.adapter, recipe.evaluate.curve.samples_per_problem
    entries = [(*paths, policy) for paths, policy in zip(journals, policies, strict=True)]
    took = complete(entries, problems, samples, recipe, tokenizer, adapter, label)

    def counts(path: Path) -> list[tuple[int, int]]:
        return passed(problems, list({grade.key: grade for grade in Journal(path, Grade).read()}.values()))

    tried = [(policy, counts(grades)) for policy, (_, grades) in zip(policies, journals, strict=True)]
    best, found = measured(tried, resamples)
    answers = Journal(journals[best][0], Generation).each()
    entropy = {} if is_base else _fork_entropy(recipe, files, suite, problems)
    now = {
        "v": 1,
        "round": files.number,
        "arm": files.arm,
        "suite": suite,
        "samples_per_problem": samples,
        **found,
        "diversity": diversity(found["pass_at"], answers) | entropy.get("student", {}),
        "diversity_of_base": entropy.get("base", {}),  # what was measured along the same answers
    }
    earlier = [] if is_base else [read_json(path.validation) for path in _earlier(files)]
    write_json(files.validation, now | {"differences": differences(earlier, now, resamples)})
    return took


def _earlier(files: RunFiles) -> list[RunFiles]:
    """The base, and every round before this one."""
    before = [replace(files, number=number) for number in range(rounds.FIRST, files.number)]
    return [_base(files), *before]


def _base(files: RunFiles) -> RunFiles:
    return RunFiles(files.directory, BASE, number=0)


def _policies(recipe: Recipe, is_base: bool) -> list[Any]:
    """The curve's decodings, of the base with its further top-p."""
    from mlx_ssd.controls import policy_of

    curve, own = recipe.evaluate.curve, recipe.evaluate.decoding
    top_ps = (own.top_p, *curve.base_top_p) if is_base else (own.top_p,)
    found = [
        policy_of(Decoding(**own.model_dump() | {"temperature": temperature, "top_p": top_p}))
        for top_p in top_ps
        for temperature in curve.temperatures
    ]
    return list(dict.fromkeys(found))


def _fork_entropy(recipe: Recipe, files: RunFiles, suite: str, problems: list[Any]) -> dict[str, Any]:
    """Mean nats at the base's forks along its own answers, of base and student; nothing where it has no fork there."""
    from mlx_ssd.analysis import store
    from mlx_ssd.analysis.analysing import analyse, subject_of
    from mlx_ssd.arms import Arm
    from mlx_ssd.decoding.policy import DecodingPolicy
    from mlx_ssd.records import Generation
    from mlx_ssd.storage import Journal, read_json

    best = DecodingPolicy(**read_json(_base(files).validation)["decoding"]).name()
    journal = Journal(_base(files).validated / generations_name(suite, best), Generation)
    drawn = {g.problem_id: g for g in journal.each() if g.sample_index == 0}
    texts, tokens = [], 0
    for problem in problems:
        answer = drawn[problem.id]
        tokens += len(answer.completion_ids)
        if texts and tokens > FORK_TOKENS:
            break
        if answer.completion_ids:
            chosen = answer.model_dump(include={"problem_id", "sample_index", "prompt_ids", "completion_ids"})
            texts.append(store.Text(**chosen, finish_reason=answer.finish_reason))
    folder = files.validated / "forks"
    words = f"the base's answers to the validation problems, decoded at {best}"
    analyse(folder, subject_of(Arm(files.arm, recipe, files)), texts, words, recipe.evaluate.bootstrap_resamples)
    fork = store.summary(folder, files.arm)["labels"]["fork"]
    return {side: {"fork_entropy": fork[side]["entropy"]} for side in store.SIDES} if fork["tokens"] else {}
