"""Distilling more than once: what a round changes in the recipe, and where a run stands by its files.

A round samples, curates, trains and is then validated (validation.py). Whether another round follows, and which one is
kept, is decided here from what the rounds so far measured, round-N/validation.json; so which rounds there are is known
from the files, one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlx_ssd.layout import BASE, RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.sections import Decoding, Floors, Rounds
from mlx_ssd.storage import read_json

FIRST = 1  # round 0 is the base
PATIENCE = 2  # rounds in a row that are not shown to be better end `auto`

Found = dict[str, Any]  # validation.json


@dataclass(frozen=True)
class Decision:
    """What follows after a round."""

    below_floors: tuple[str, ...]  # kinds of diversity
    rival: int  # the best round before this one, the base included
    better: bool  # than the rival, by the interval
    kept: int  # the best round so far, the base aside; of equals the first
    go_on: bool
    because: str


@dataclass(frozen=True)
class Standing:
    """Of one arm: the last round that was begun or may begin now, the round that is kept, and whether that is final."""

    number: int
    kept: int
    over: bool


def recipe_of_round(recipe: Recipe, number: int) -> Recipe:
    """An arm's recipe with the temperature and the problems of a round."""
    rounds, train, decoding = recipe.rounds, recipe.problems.train, recipe.sample.decoding
    if rounds.temperatures:
        chosen = rounds.temperatures[min(number, len(rounds.temperatures)) - 1]
        decoding = decoding.model_copy(update={"temperature": chosen})
    if rounds.prompts == "fresh" and rounds.last > 1:
        train = train.model_copy(update={"skip": train.skip + (number - 1) * train.limit})
    return recipe.model_copy(
        update={
            "problems": recipe.problems.model_copy(update={"train": train}),
            "sample": recipe.sample.model_copy(update={"decoding": decoding}),
        }
    )


def teacher(recipe: Recipe, files: RunFiles) -> Path | None:
    """The adapter of the model that draws a round's samples; None for the base. recipe: the arm's own."""
    return None if draws_from_base(recipe, files.number) else adapter_before(files)


def beginning(recipe: Recipe, files: RunFiles) -> Path | None:
    """The adapter that a round's training goes on from; None for a fresh one."""
    goes_on = files.number > FIRST and recipe.rounds.adapter == "continue"
    return adapter_before(files) if goes_on else None


def adapter_before(files: RunFiles) -> Path:
    return replace(files, number=files.number - 1).adapter


def taught_by(recipe: Recipe, number: int) -> list[Decoding]:
    """The decodings that stand between the base and a round's student, were each round's targets learnt exactly: the
    round's own, and before it those of the rounds that made its teacher. recipe: the arm's own."""
    first = number if draws_from_base(recipe, number) else FIRST
    return [recipe_of_round(recipe, n).sample.decoding for n in range(first, number + 1)]


def label(files: RunFiles) -> list[str]:
    """What a progress bar says of the round, where there are several."""
    return [f"round {files.number}"] if files.number > FIRST else []


def draws_from_base(recipe: Recipe, number: int) -> bool:
    return number == FIRST or recipe.rounds.teacher == "base"


def standing(recipe: Recipe, directory: Path, arm: str) -> Standing:
    """recipe: the arm's own. A run of one round needs no decision."""
    if recipe.rounds.last == FIRST:
        return Standing(FIRST, FIRST, True)
    found = validations(directory, arm)
    made = decisions(recipe.rounds, found)
    last = next((n for n, decision in enumerate(made, start=FIRST) if not decision.go_on), None)
    if last is None:
        return Standing(len(made) + 1, made[-1].kept if made else FIRST, False)
    return Standing(last, made[last - 1].kept, True)


def validations(directory: Path, arm: str) -> list[Found]:
    """validation.json of the base, and of each round of an arm, as far as they are there one after the other."""
    paths = [RunFiles(directory, BASE, number=0).validation]
    found = []
    while paths[-1].exists():
        found.append(read_json(paths[-1]))
        paths.append(RunFiles(directory, arm, number=len(found)).validation)
    return found


def decisions(rounds: Rounds, found: Sequence[Found]) -> list[Decision]:
    """After each round; found: of the base first."""
    made: list[Decision] = []
    for number in range(FIRST, len(found)):
        below = below_floors(rounds.floors, found[0], found[number])
        allowed = [n for n in range(number) if n == 0 or not made[n - 1].below_floors]
        rival = max(allowed, key=lambda n: _rate(found[n]))
        better = found[number]["differences"][str(rival)]["low"] > 0
        candidates = [n for n in allowed if n] + ([] if below else [number])
        kept = max(candidates, key=lambda n: _rate(found[n]), default=FIRST)
        go_on, because = _goes_on(rounds, number, below, [*(decision.better for decision in made), better])
        made.append(Decision(below, rival, better, kept, go_on, because))
    return made


def below_floors(floors: Floors, base: Found, now: Found) -> tuple[str, ...]:
    """The kinds of diversity of which too little is left."""
    before = base["diversity"] | now["diversity_of_base"]
    shares = floors.model_dump().items()
    return tuple(
        name
        for name, share in shares
        if name in before and name in now["diversity"] and now["diversity"][name] < share * before[name]
    )


def _goes_on(rounds: Rounds, number: int, below: tuple[str, ...], better: list[bool]) -> tuple[bool, str]:
    if rounds.count != "auto":
        return number < rounds.count, f"round {number} of {rounds.count}"
    if below:
        return False, f"diversity fell below its floor ({', '.join(below)})"
    if len(better) >= PATIENCE and not any(better[-PATIENCE:]):
        return False, f"{PATIENCE} rounds in a row were not shown to be better than the best before them"
    if number >= rounds.most:
        return False, f"round {number} is the last that rounds.most allows"
    return True, "better than all before" if better[-1] else "not shown to be better, once"


def _rate(found: Found) -> float:
    return found["pass_at"]["1"]["mean"]
