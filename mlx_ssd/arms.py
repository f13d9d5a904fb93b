"""Who is compared in a run: the frozen base, the recipe's student, and its further arms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlx_ssd import rounds
from mlx_ssd.layout import BASE, MAIN, RunFiles
from mlx_ssd.recipe import Recipe


@dataclass(frozen=True)
class Arm:
    """One arm with its own recipe, and the run's files as it sees them."""

    name: str
    recipe: Recipe
    files: RunFiles


def students(recipe: Recipe, directory: Path) -> list[Arm]:
    """The main student first; each as its kept round made it, and decoded as was chosen there. Before the last
    round is over, that is the best one so far, decoded as the recipe has it."""
    recipe = settled(recipe, directory)
    kept = {name: rounds.standing(recipe.of_arm(name), directory, name).kept for name in _names(recipe)}
    of = {number: {arm.name: arm for arm in of_round(recipe, directory, number)} for number in set(kept.values())}
    return [of[number][name] for name, number in kept.items()]


def of_round(recipe: Recipe, directory: Path, number: int) -> list[Arm]:
    """The students that go through a round, the main one first. Arms that sample (and curate) alike share the samples
    (and rows) of it, where these are the base's."""
    found: list[Arm] = []
    for name in _names(recipe):
        own = recipe.of_arm(name)
        if rounds.standing(own, directory, name).number < number:
            continue
        own = rounds.recipe_of_round(own, number)
        sampling = _sampling(own, number)
        alike = [arm for arm in found if sampling and _sampling(arm.recipe, number) == sampling]
        samples_of = alike[0].files.samples_of if alike else name
        curated = (arm for arm in found if arm.files.samples_of == samples_of and arm.recipe.curate == own.curate)
        rows_of = next((arm.files.rows_of for arm in curated), name)
        found.append(Arm(name, own, RunFiles(directory, name, samples_of, rows_of, number)))
    return found


def history(recipe: Recipe, directory: Path, name: str) -> list[Arm]:
    """A student at each of its rounds, up to the kept one."""
    kept = rounds.standing(recipe.of_arm(name), directory, name).kept
    every = (of_round(recipe, directory, number) for number in range(rounds.FIRST, kept + 1))
    return [next(arm for arm in found if arm.name == name) for found in every]


def base(recipe: Recipe, directory: Path) -> Arm:
    return Arm(BASE, recipe, RunFiles(directory, BASE))


def settled(recipe: Recipe, directory: Path) -> Recipe:
    """The recipe with the temperatures that were chosen for the kept rounds: students are decoded at their own."""
    chosen = {}
    for name in _names(recipe):
        own = recipe.of_arm(name)
        temperature = own.evaluate.decoding.temperature
        now = rounds.standing(own, directory, name)
        if own.rounds.last > 1 and now.over:
            temperature = rounds.validations(directory, name)[now.kept]["decoding"]["temperature"]
        chosen[name] = temperature
    decoding = recipe.evaluate.decoding
    if all(recipe.of_arm(name).evaluate.decoding.temperature == chosen[name] for name in chosen):
        return recipe
    evaluation = recipe.evaluate.model_copy(
        update={"decoding": decoding.model_copy(update={"temperature": chosen[MAIN]})}
    )
    own_arms = tuple(
        arm.model_copy(update={"set": arm.set | {"evaluate.decoding.temperature": chosen[arm.name]}})
        for arm in recipe.arms
    )
    return recipe.model_copy(update={"evaluate": evaluation, "arms": own_arms})


def _names(recipe: Recipe) -> list[str]:
    return [MAIN, *(arm.name for arm in recipe.arms)]


def _sampling(recipe: Recipe, number: int) -> tuple | None:
    """What samples that may be shared are made of; None for samples of a student's own."""
    if not rounds.draws_from_base(recipe, number):
        return None
    return recipe.problems.train, recipe.sample.settings()
