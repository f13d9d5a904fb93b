"""The command that writes the report: `mlx-ssd report`. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlx_ssd.errors import BadInput


def report_command(stage: click.Command) -> click.Command:
    """The report's stage command, and what can be asked of its page.

    `--compare A B` is one option and one argument to click: runs after the first belong to --compare.
    """

    def command(others: tuple[Path, ...], compare: tuple[Path, ...], open_it: bool, **of_stage: Any) -> None:
        if others and not compare:
            raise BadInput("report takes one RUN; set others beside it with --compare")
        stage.callback(**of_stage)
        page = of_stage["run_dir"] / "report.html"
        if compare:
            from mlx_ssd.report.page.compare import write_comparison

            page = write_comparison([of_stage["run_dir"], *compare, *others])
            click.echo(f"Side by side: {page}")
        if open_it:
            click.launch(str(page))

    path = click.Path(path_type=Path)
    options = [
        click.Option(["--compare"], type=path, multiple=True, metavar="RUN", help="Set runs side by side on one page."),
        click.Option(["--open", "open_it"], is_flag=True, help="Show the page in the browser."),
    ]
    run_dir, *rest = stage.params
    others = click.Argument(["others"], nargs=-1, type=path, metavar="")
    help_text = "Write report.json, report.md and report.html, and print the table. RUN is a run directory."
    return click.Command("report", callback=command, params=[run_dir, others, *options, *rest], help=help_text)
