"""A recipe sized for a machine: the plan fills in what depends on it, and shortens what would not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_ssd.budget import Costs, Speed, prompts_for
from mlx_ssd.errors import BadInput
from mlx_ssd.planning import mends
from mlx_ssd.planning.plan import STAGES, Plan, plan_for
from mlx_ssd.planning.words import gigabytes, on
from mlx_ssd.progress import duration
from mlx_ssd.recipe import Recipe
from mlx_ssd.storage import write_atomic


def sized(
    recipe: Recipe,
    config: Mapping[str, Any],
    described: Mapping[str, Any],
    speed: Speed | None,
    hours: float | None = None,
) -> Recipe:
    """Rows side by side and, of `hours`, the number of prompts; answers so short, and so few layers, that it fits.

    How a training step is cut (train.row_tokens, train.gradient_checkpointing) stays null: training chooses it from
    the samples as they are. Raises BadInput where nothing fits, or the hours are too few.
    """
    settings = mends.mend(recipe, config, described)
    if settings is None:
        plan_for(recipe, config, described, None, hurried=True)  # says why
        raise BadInput(f"{recipe.name} does not fit this machine")
    recipe = mends.changed(recipe, settings)
    if hours is not None:
        return mends.changed(recipe, prompts_for(hours, recipe, described, config, speed).settings)
    costs = Costs.of(recipe, config, described, speed, choose_rows=True)
    return mends.changed(recipe, {"sample.rows": costs.sample_rows, "evaluate.rows": costs.evaluate_rows})


def write_recipe(path: Path, plan: Plan, source: str, hours: float | None) -> None:
    """The recipe of a plan as a file that `mlx-ssd run` takes, headed by what it was sized for and what it takes."""
    size = f"{plan.machine['memory_bytes'] / mends.GIB:.0f}gb"
    recipe = plan.recipe.model_copy(update={"name": f"{plan.recipe.name}-{size}"})
    asked = f"mlx-ssd plan {source}"
    if "recommended_bytes" not in plan.machine:  # with it another machine's plan would be another
        asked += f" --memory-gb {plan.machine['memory_bytes'] / mends.GIB:g}"
        asked += f' --chip "{plan.machine["chip"]}"' if plan.machine["chip"].startswith("Apple") else ""
    asked += f" --hours {hours:g}" if hours is not None else ""
    peak = plan.costs.peak_bytes
    head = [
        f"{plan.recipe.name} sized for {on(plan)}, by the plan:",
        "",
        f"    {asked} --write {path.name}",
        "",
        "Peak GB    " + ", ".join(f"{stage} {gigabytes(peak[stage])}" for stage in STAGES) + "; computed.",
    ]
    if plan.seconds:
        times = ", ".join(f"{stage} {duration(plan.seconds[stage])}" for stage in STAGES)
        head.append(f"Hours      {times}; computed.")
    text = "\n".join(f"# {line}".rstrip() for line in head)
    write_atomic(path, f"{text}\n{recipe.to_yaml()}")
