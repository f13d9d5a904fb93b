"""What to change where a recipe does not fit: shorter answers first, then fewer trained layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mlx_ssd.budget import Costs, UnusualModel
from mlx_ssd.errors import BadInput
from mlx_ssd.recipe import Recipe

SHORTEST = 512  # tokens of an answer: shorter ones are no help to anybody
LAYERS = (16, 8, 4)
MACS = (8, 16, 18, 24, 32, 36, 48, 64, 96, 128, 192, 256, 512)  # GB, as Apple sells them
GIB = 2**30

Settings = dict[str, Any]


def fits(recipe: Recipe, config: Mapping[str, Any], machine: Mapping[str, Any]) -> bool:
    """Raises UnusualModel for a model whose size cannot be computed."""
    try:
        Costs.of(recipe, config, machine, None)
    except UnusualModel:
        raise
    except BadInput:
        return False
    return True


def mend(recipe: Recipe, config: Mapping[str, Any], machine: Mapping[str, Any]) -> Settings | None:
    """The least change that makes a recipe fit: {} if it does, None if none of these does."""
    return next((s for s in _ladder(recipe) if fits(changed(recipe, s), config, machine)), None)


def least_mac(recipe: Recipe, config: Mapping[str, Any], machine: Mapping[str, Any]) -> int | None:
    """GB of the smallest Mac that a recipe fits as it is."""
    return next((gb for gb in MACS if fits(recipe, config, mac_with(gb, machine))), None)


def mac_with(gigabytes: int, machine: Mapping[str, Any]) -> dict[str, Any]:
    """A Mac with so much memory, in place of a machine."""
    other = {key: value for key, value in machine.items() if key != "recommended_bytes"}
    return other | {"chip": "Apple", "memory_bytes": gigabytes * GIB}


def changed(recipe: Recipe, settings: Settings) -> Recipe:
    return Recipe.parse(recipe.to_yaml(), recipe.name, settings)


def as_options(settings: Settings) -> str:
    return " ".join(f"--set {key}={value}" for key, value in settings.items())


def _ladder(recipe: Recipe) -> Iterator[Settings]:
    settings: Settings = {}
    yield settings
    longest = max(recipe.sample.max_tokens, recipe.evaluate.max_tokens, recipe.train.max_length)
    while longest // 2 >= SHORTEST:
        longest //= 2
        asked = {"sample.max_tokens": recipe.sample.max_tokens, "evaluate.max_tokens": recipe.evaluate.max_tokens}
        settings = {key: longest for key, value in asked.items() if value > longest}
        if recipe.train.max_length > longest and settings:
            # A prompt beside the answer, as it is assumed; what is longer still is cut.
            settings["train.max_length"] = min(recipe.train.max_length, 2 * longest)
        if settings:
            yield settings
    for layers in LAYERS:
        if recipe.train.num_layers < 0 or recipe.train.num_layers > layers:
            yield settings | {"train.num_layers": layers}
