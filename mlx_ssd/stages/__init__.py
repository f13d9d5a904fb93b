"""The stages in the order of the data. Each is a module with the same six names:

    VERSION                   raised by hand when the stage's result changes for equal inputs
    settings(recipe)          the part of the recipe that its result depends on
    check(recipe)             refuse bad input (BadInput) that can be seen before anything is loaded or written
    inputs(recipe, files)     name -> hash of everything else that it reads
    outputs(recipe, files)    the paths it writes
    run(recipe, files)        do it, going on where an earlier process stopped; returns measurements

A stage module imports nothing heavy at the top: the pipeline reads its first five names at start-up.
Stages never import stages; they meet in files.
"""

from __future__ import annotations

import importlib
from typing import Protocol

from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe

NAMES = ("sample", "curate", "train", "evaluate", "report")


class Stage(Protocol):
    VERSION: int

    def settings(self, recipe: Recipe) -> dict: ...
    def check(self, recipe: Recipe) -> None: ...
    def inputs(self, recipe: Recipe, files: RunFiles) -> dict[str, str]: ...
    def outputs(self, recipe: Recipe, files: RunFiles) -> list: ...
    def run(self, recipe: Recipe, files: RunFiles) -> dict: ...


def get(name: str) -> Stage:
    return importlib.import_module(f"mlx_ssd.stages.{name}")
