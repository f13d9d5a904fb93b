"""Sample: one raw, unverified solution a problem from the frozen model; in later rounds, from the student before.

Writes problems.jsonl (what was asked) with selection.json (what was left out, and why), then samples.jsonl.
"""

from __future__ import annotations

from pathlib import Path

from mlx_ssd import models, rounds
from mlx_ssd.layout import MAIN, RunFiles
from mlx_ssd.problems import identity, read_problems, select_training
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Problem
from mlx_ssd.sampling.engines import check_engine
from mlx_ssd.sections import ProblemSource
from mlx_ssd.storage import Journal, hash_path, write_json, write_records

VERSION = 2


def settings(recipe: Recipe) -> dict:
    return {
        "seed": recipe.seed,
        "model": recipe.model.model_dump(),
        "prompt": recipe.prompt.settings(),
        "problems": {
            "train": recipe.problems.train.model_dump(exclude={"path"}),
            "against": [source.model_dump(exclude={"path"}) for source in _against(recipe).values()],
        },
        "sample": recipe.sample.settings(),
    }


def check(recipe: Recipe) -> None:
    check_engine(recipe.sample.engine)
    models.locate(recipe.model)
    if recipe.problems.train.source != "rstar_coder":  # which is only looked at when it is fetched
        read_problems(recipe.problems.train, "train")


def inputs(recipe: Recipe, files: RunFiles) -> dict[str, str]:
    found = {
        "model": models.locate(recipe.model).revision,
        "problems.train": identity(recipe.problems.train, "train"),
    }
    if files.number > rounds.FIRST:
        found["round"] = str(files.number)  # with draws of its own
    if teacher := rounds.teacher(recipe, files):
        found["adapter"] = hash_path(teacher)
    return found | {f"problems.{role}": identity(source, role) for role, source in _against(recipe).items()}


def outputs(recipe: Recipe, files: RunFiles) -> list[Path]:
    return [files.problems, files.selection, files.samples]


def run(recipe: Recipe, files: RunFiles) -> dict:
    from mlx_ssd.controls import policy_of
    from mlx_ssd.distributed.sharing import sharing
    from mlx_ssd.records import Sample
    from mlx_ssd.sampling.collect import Target, collect
    from mlx_ssd.sampling.engines import engine_of
    from mlx_ssd.sampling.loops import loop_stop_of

    if not (files.problems.exists() and files.selection.exists()):
        against = [problem for role, source in _against(recipe).items() for problem in read_problems(source, role)]
        problems, account = select_training(recipe.problems.train, against)
        write_records(files.problems, problems)
        write_json(files.selection, account)
    problems = Journal(files.problems, Problem).read()
    source, teacher = models.locate(recipe.model), rounds.teacher(recipe, files)
    engine = engine_of(recipe.sample.engine, recipe.sample.server)
    model, tokenizer = engine.load(source, recipe.model.dtype, *([teacher] if teacher else []))
    return collect(
        [Target(files.samples, policy_of(recipe.sample.decoding))],
        Sample,
        problems,
        model,
        tokenizer,
        prompt=recipe.prompt,
        samples_per_problem=recipe.sample.samples_per_problem,
        max_tokens=recipe.sample.max_tokens,
        rows=recipe.sample.rows,
        memory_gb=recipe.sample.memory_gb,
        loops=loop_stop_of(recipe.sample.stop_loops),
        seed=recipe.seed,
        stream=f"train/round-{files.number}",
        revision=models.revision_of(source, teacher),
        label=" ".join(["sample", *([files.arm] if files.arm != MAIN else []), *rounds.label(files)]),
        engine=engine,
        sharing=sharing(),
    )


def _against(recipe: Recipe) -> dict[str, ProblemSource]:
    """The problems that must not leak into training, where the source is cleaned of them."""
    train, problems = recipe.problems.train, recipe.problems
    if train.source != "rstar_coder" or not train.decontaminate:
        return {}
    sources = {"validation": problems.validation, "test": problems.test}
    return {role: source for role, source in sources.items() if source is not None and source != train}
