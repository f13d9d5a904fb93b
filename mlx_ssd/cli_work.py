"""The command that lends a machine to a run elsewhere: `mlx-ssd work`. Imports nothing heavy."""

from __future__ import annotations

import math
from typing import Any

import click

MOST_HOURS = 24 * 366.0  # a year: for ever, as far as anybody waits
MOST_GB = 1e6


class Finite(click.FloatRange):
    """A range without nan, which click lets through: it is neither below nor above a bound."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not a number between {self.min:g} and {self.max:g}.", param, ctx)
        return number


@click.command("work")
@click.argument("address", metavar="HOST:PORT")
@click.option("--model", metavar="FOLDER", help="Where the run's model is on this machine, if it is elsewhere.")
@click.option("--memory-gb", type=Finite(0, MOST_GB, min_open=True), help="What computing may take here.")
@click.option("--rows", type=click.IntRange(1), help="Samples drawn side by side here; usually as the run has it.")
@click.option(
    "--wait",
    type=Finite(0, MOST_HOURS),
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="End after so long without work.",
)
@click.option("--draw-only", is_flag=True, help="Take no part in trainings.")
@click.option("--yes", is_flag=True, help="Download the run's model without asking.")
def work_command(
    address: str,
    model: str | None,
    memory_gb: float | None,
    rows: int | None,
    wait: float,
    draw_only: bool,
    yes: bool,
) -> None:
    """Draw samples for a run on another machine, and train with it.

    That run was started with --workers-at HOST:PORT. Both machines need the same version of mlx-ssd, the same model and
    the same secret in the environment variable MLX_SSD_SECRET. A worker may come late, leave at any time, and waits
    between the run's stages.
    """
    from mlx_ssd.distributed.address import address_of
    from mlx_ssd.distributed.worker import Settings
    from mlx_ssd.distributed.working import supervised

    supervised(Settings(address_of(address, "work"), model, memory_gb, rows, 3600 * wait, yes, draw_only))
