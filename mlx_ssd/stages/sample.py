"""Sample: one raw, unverified solution a problem from the frozen model -> round-1/samples.jsonl."""

from __future__ import annotations

from pathlib import Path

from mlx_ssd import models
from mlx_ssd.layout import RunFiles
from mlx_ssd.problems import problem_file, read_problems
from mlx_ssd.recipe import Recipe
from mlx_ssd.storage import hash_path

VERSION = 1
STREAM = "train/round-1"


def settings(recipe: Recipe) -> dict:
    return {
        "seed": recipe.seed,
        "model": recipe.model.model_dump(),
        "prompt": recipe.prompt.model_dump(),
        "problems": {"train": recipe.problems.train.model_dump()},
        # `rows` changes the speed, not the samples: it may be changed on resuming.
        "sample": recipe.sample.model_dump(exclude={"rows"}),
    }


def check(recipe: Recipe) -> None:
    models.locate(recipe.model)
    read_problems(recipe.problems.train, "train")


def inputs(recipe: Recipe, files: RunFiles) -> dict[str, str]:
    return {
        "model": models.locate(recipe.model).revision,
        "problems.train": hash_path(problem_file(recipe.problems.train, "train")),
    }


def outputs(recipe: Recipe, files: RunFiles) -> list[Path]:
    return [files.samples]


def run(recipe: Recipe, files: RunFiles) -> dict:
    from mlx_ssd.decoding.policy import DecodingPolicy
    from mlx_ssd.records import Sample
    from mlx_ssd.sampling.collect import Target, collect

    source = models.locate(recipe.model)
    model, tokenizer = models.load(source, recipe.model.dtype)
    return collect(
        [Target(files.samples, DecodingPolicy(**recipe.sample.decoding.model_dump()))],
        Sample,
        read_problems(recipe.problems.train, "train"),
        model,
        tokenizer,
        prompt=recipe.prompt,
        samples_per_problem=recipe.sample.samples_per_problem,
        max_tokens=recipe.sample.max_tokens,
        rows=recipe.sample.rows,
        seed=recipe.seed,
        stream=STREAM,
        revision=source.revision,
        label="sample",
    )
