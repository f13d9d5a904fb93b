"""Who is compared in a run: the frozen base, the recipe's student, and its further arms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlx_ssd.layout import BASE, MAIN, RunFiles
from mlx_ssd.recipe import Recipe


@dataclass(frozen=True)
class Arm:
    """One arm with its own recipe, and the run's files as it sees them."""

    name: str
    recipe: Recipe
    files: RunFiles


def students(recipe: Recipe, directory: Path) -> list[Arm]:
    """The main student first. Arms that sample (and curate) alike share the samples (and rows)."""
    found: list[Arm] = []
    for name in (MAIN, *(arm.name for arm in recipe.arms)):
        own = recipe.of_arm(name)
        samples_of = next((arm.files.samples_of for arm in found if _sampling(arm.recipe) == _sampling(own)), name)
        alike = (arm for arm in found if arm.files.samples_of == samples_of and arm.recipe.curate == own.curate)
        rows_of = next((arm.files.rows_of for arm in alike), name)
        found.append(Arm(name, own, RunFiles(directory, name, samples_of, rows_of)))
    return found


def base(recipe: Recipe, directory: Path) -> Arm:
    return Arm(BASE, recipe, RunFiles(directory, BASE))


def _sampling(recipe: Recipe) -> tuple:
    return recipe.problems.train, recipe.sample.model_copy(update={"rows": 1, "engine": "mlx"})
