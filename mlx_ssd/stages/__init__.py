"""The stages in the order of the data. Each is a module with the same six names:

    VERSION                   raised by hand when the stage's result changes for equal inputs
    settings(recipe)          the part of the recipe that its result depends on
    check(recipe)             refuse bad input (BadInput) that can be seen before anything is loaded or written
    inputs(recipe, files)     name -> hash of everything else that it reads
    outputs(recipe, files)    the paths it writes
    run(recipe, files)        do it, going on where an earlier process stopped; returns measurements

A stage module imports nothing heavy at the top: the pipeline reads its first five names at start-up.
Stages never import stages; they meet in files. A stage works for one arm: `units` says which.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mlx_ssd.arms import base, of_round, settled, students
from mlx_ssd.layout import BASE, RunFiles, unit_name
from mlx_ssd.recipe import Recipe

NAMES = ("sample", "curate", "train", "validate", "evaluate", "score", "analyze", "report")
OF_A_ROUND = NAMES[:4]
DERIVED = ("score", "analyze", "report")  # made anew without asking when what they read has changed


class Stage(Protocol):
    VERSION: int

    def settings(self, recipe: Recipe) -> dict: ...
    def check(self, recipe: Recipe) -> None: ...
    def inputs(self, recipe: Recipe, files: RunFiles) -> dict[str, str]: ...
    def outputs(self, recipe: Recipe, files: RunFiles) -> list: ...
    def run(self, recipe: Recipe, files: RunFiles) -> dict: ...


@dataclass(frozen=True)
class Unit:
    """A stage of one arm: what is skipped, run or resumed as a whole."""

    stage: str
    recipe: Recipe
    files: RunFiles

    @property
    def name(self) -> str:
        return unit_name(self.stage, self.files)


def get(name: str) -> Stage:
    return importlib.import_module(f"mlx_ssd.stages.{name}")


def units(recipe: Recipe, directory: Path) -> list[Unit]:
    """Every unit of a run, in the order of the data, as far as that is known: whether a round follows is found by the
    validation of the one before. An arm samples and curates only where no arm before it did so in the same way."""
    found = []
    if any(arm.recipe.rounds.last > 1 for arm in of_round(recipe, directory, 1)):
        found.append(Unit("validate", recipe, RunFiles(directory, BASE, number=0)))
    number = 1
    while trained := of_round(recipe, directory, number):
        found += [Unit("sample", arm.recipe, arm.files) for arm in trained if arm.files.samples_of == arm.name]
        found += [Unit("curate", arm.recipe, arm.files) for arm in trained if arm.files.rows_of == arm.name]
        found += [Unit("train", arm.recipe, arm.files) for arm in trained]
        several = [arm for arm in trained if arm.recipe.rounds.last > 1]
        found += [Unit("validate", recipe.of_arm(arm.name), arm.files) for arm in several]  # it looks at all rounds
        number += 1
    # These know of all arms: base is decoded as each student is.
    recipe, trained = settled(recipe, directory), students(recipe, directory)
    found += [Unit("evaluate", recipe, arm.files) for arm in (base(recipe, directory), *trained)]
    last = ("score", "analyze", "report") if recipe.analyze else ("score", "report")
    return found + [Unit(stage, recipe, trained[0].files) for stage in last]
