"""How many problems fit into a night: `--hours`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_ssd.budget.chips import chip_of
from mlx_ssd.budget.costs import Costs
from mlx_ssd.budget.speed import ChipSpeed, Speed
from mlx_ssd.errors import BadInput
from mlx_ssd.recipe import Recipe

RESERVE = 0.1  # of the hours: loading, checkpoints, heat
MOST_PROBLEMS = 10**6


@dataclass(frozen=True)
class Sizing:
    """What `prompts_for` chose, and why. All figures are computed."""

    problems: int  # problems.train.limit
    sample_rows: int
    evaluate_rows: int
    seconds: dict[str, float]  # by stage
    peak_bytes: dict[str, float]  # by stage, and "limit"
    sentences: tuple[str, ...]

    @property
    def settings(self) -> dict[str, int]:
        """To be laid over the recipe."""
        return {
            "problems.train.limit": self.problems,
            "sample.rows": self.sample_rows,
            "evaluate.rows": self.evaluate_rows,
        }


def prompts_for(
    hours: float,
    recipe: Recipe,
    machine: Mapping[str, Any],
    config: Mapping[str, Any],
    speed: Speed | None = None,
) -> Sizing:
    """How many training problems `recipe` can take in `hours`, evaluation included, and the rows side by side.

    `machine` is machine.describe(); `config` is the model's config.json; `speed`: by the chip's table, if none is
    given. Raises BadInput for a machine whose speed is not known, for a model or an answer that does not fit into its
    memory, and for hours that are too few.
    """
    if not 0 < hours < float("inf"):
        raise BadInput(f"--hours {hours:g}: give a number of hours above 0")
    chip = chip_of(machine)
    if not speed and not chip:
        raise BadInput(
            f"--hours cannot size a run on {machine['chip']}: its memory bandwidth is not known; leave --hours out and "
            "choose yourself: --set problems.train.limit=500 --set sample.rows=16 --set evaluate.rows=16"
        )
    costs = Costs.of(recipe, config, machine, speed or ChipSpeed(chip), choose_rows=True)
    judged = costs.judged_seconds
    there = hours * 3600 * (1 - RESERVE)
    problems = bisect_right(range(MOST_PROBLEMS), there, key=lambda n: sum(costs.seconds(n).values())) - 1
    if problems < recipe.train.rows_per_step:
        raise BadInput(
            f"--hours {hours:g}: evaluation alone takes {judged / 3600:.1f} h here (computed), and no training step "
            "fits beside it; give more hours, or lower evaluate.samples_per_problem or problems.test.limit"
        )
    seconds, peak = costs.seconds(problems), costs.peak_bytes
    largest, sampling = costs.largest.plan, costs.sampling

    def hours_of(stage: str) -> str:
        return f"{seconds[stage] / 3600:.1f} h"

    return Sizing(
        problems=problems,
        sample_rows=costs.sample_rows,
        evaluate_rows=costs.evaluate_rows,
        seconds=seconds,
        peak_bytes=peak | {"limit": costs.memory},
        sentences=(
            f"{problems:,} training problems: sampling {hours_of('sample')} with {costs.sample_rows} rows side by side,"
            f" training {hours_of('train')}, evaluation {hours_of('evaluate')}; {RESERVE:.0%} of the time is kept "
            "back.",
            f"Peak memory: sampling {peak['sample'] / 1e9:.1f} GB, training {peak['train'] / 1e9:.1f} GB, of "
            f"{costs.memory / 1e9:.1f} GB that can be counted on.",
            f"Training takes rows of {largest.row_tokens:,} tokens"
            + (" and recomputes activations." if largest.gradient_checkpointing else "."),
            f"Assumed: {sampling.prompt} tokens a prompt, {sampling.answer:,} an answer; {costs.speed.source}.",
            "The first hour will tell.",
        ),
    )
