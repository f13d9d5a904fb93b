"""What a run will take, before anything loads: `mlx-ssd plan`, and the beginning of `run`. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlx_ssd.errors import BadInput, WorkFailed


@click.command("plan")
@click.argument("recipe", default="quickstart")
@click.option("--memory-gb", type=float, help="Plan for a machine with so much memory.")
@click.option("--chip", help='Plan for this chip: "Apple M4 Pro".')
@click.option("--hours", type=float, help="Choose the number of prompts, and the rows, for so long.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting of the recipe.")
@click.option("--model", metavar="MODEL", help="Folder or hub name of the model (sets model.path).")
@click.option("--calibrate/--no-calibrate", default=None, help="Measure this machine's speed, about ten seconds, once.")
@click.option("--write", type=click.Path(path_type=Path), help="Write the recipe as it is sized to this file.")
@click.option("--yes", is_flag=True, help="Fetch a model's config.json from the hub, if it is not here.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan_command(
    recipe: str,
    memory_gb: float | None,
    chip: str | None,
    hours: float | None,
    overrides: tuple[str, ...],
    model: str | None,
    calibrate: bool | None,
    write: Path | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Bytes by part and hours by stage of a recipe, computed before anything is downloaded or loaded.

    RECIPE is a name or a YAML file. On a machine of which nothing is published the speed is measured first, and kept.
    """
    import json

    from mlx_ssd import planning
    from mlx_ssd.planning import plan as plans
    from mlx_ssd.recipe import Recipe

    settings = overrides_of(overrides, model)
    resolved = Recipe.load(recipe, settings)
    config = config_of(resolved.model, yes)
    described = plans.injected(memory_gb, chip)
    elsewhere = chip is not None
    if calibrate and elsewhere:
        raise BadInput("--calibrate measures this machine; leave --chip out")
    speed = planning.speed_of(resolved, config, described)
    if hours is None and not write:  # what cannot be done is refused before anything is measured
        planning.plan_for(resolved, config, described, speed, hurried=True)
    if calibrate or (speed is None and calibrate is None):
        speed = measured(resolved, config, described)
    if hours is not None or write:
        resolved = planning.sized(resolved, config, described, speed, hours)
    plan = planning.plan_for(resolved, config, described, speed)
    if write:
        planning.write_recipe(write, plan, recipe, hours)
        click.echo(f"note: {write} is {recipe} sized for {planning.on(plan)}", err=True)
    click.echo(json.dumps(plan.record()) if as_json else planning.in_full(plan))


def overrides_of(overrides: tuple[str, ...], model: str | None) -> dict[str, Any]:
    """--set and --model as settings over a recipe's."""
    from mlx_ssd.recipe import parse_override

    # Another model has another revision than the one that the recipe pins.
    other = {"model.path": model, "model.revision": None} if model else {}
    return other | dict(parse_override(text) for text in overrides)


def config_of(model: Any, yes: bool) -> dict[str, Any]:
    """config.json of a recipe's model. Raises BadInput where it would have to be fetched, and --yes is not given."""
    from mlx_ssd import models, planning

    if config := planning.known_config(model):
        return config
    if not yes and models.is_hub_name(model.path):
        raise BadInput(
            f"model.path: config.json of {model.path} is not on this disk; --yes fetches it, a few KB, from the hub"
        )
    return models.read_config(model)


def measured(recipe: Any, config: dict[str, Any], described: dict[str, Any]) -> Any:
    """The machine's speed, measured now; None, with a note, where that fails."""
    from mlx_ssd import planning

    how_long = "about ten seconds, minutes for a large model on a processor"
    click.echo(f"note: measuring this machine's speed: {how_long}; it is kept", err=True)
    try:
        return planning.calibrate(recipe, config, described)
    except WorkFailed as error:
        click.echo(f"note: {error}; times stay unknown", err=True)
        return planning.speed_of(recipe, config, described)


def sized_for(recipe: Any, hours: float, yes: bool) -> Any:
    """The recipe with as many prompts as this machine can take in so many hours. Says what that is built on."""
    from mlx_ssd import budget, planning
    from mlx_ssd.planning import plan as plans
    from mlx_ssd.planning.mends import changed

    config = config_of(recipe.model, yes)
    described = plans.of_this_machine()
    speed = planning.speed_of(recipe, config, described)
    if speed is None:  # a night is worth ten seconds
        speed = measured(recipe, config, described)
    sizing = budget.prompts_for(hours, recipe, described, config, speed)
    for sentence in sizing.sentences:
        click.echo(f"note: {sentence}", err=True)
    return changed(recipe, sizing.settings)


def begin(recipe: Any, fetch: bool = False) -> Any:
    """Plan a run before it begins, say so in two or three lines, and refuse what cannot be done; plan.json's content.

    Nothing is measured here: a calibration takes as long as many a stage of the quickstart, whose progress says the
    same after ten seconds of work. None where the model's config.json does not say enough, or is not here yet: `fetch`
    has it downloaded, and nothing else.
    """
    from mlx_ssd import models, planning
    from mlx_ssd.budget import UnusualModel
    from mlx_ssd.planning import plan as plans

    config = planning.known_config(recipe.model)
    if config is None and fetch and models.is_hub_name(recipe.model.path):
        config = models.read_config(recipe.model)
    if config is None:
        return None
    described = plans.of_this_machine()
    try:
        speed = planning.speed_of(recipe, config, described)
        plan = planning.plan_for(recipe, config, described, speed, hurried=True)
    except UnusualModel:
        return None
    for line in planning.in_short(plan):
        click.echo(line, err=True)
    return plan.record()
