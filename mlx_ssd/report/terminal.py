"""report.json on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlx_ssd.report.markdown import curve_table, difference_table, legend, score_table, short_round_table
from mlx_ssd.report.prediction import plan_table


def show(facts: dict[str, Any], run_dir: str, console: Console | None = None) -> None:
    console = console or Console(highlight=False)

    def table(title: str, content: tuple[list[str], list[list[str]]]) -> None:
        header, rows = content
        if not rows or len(header) == 1:
            return
        grid = Table(title=title, title_justify="left")
        for name in header:
            grid.add_column(name, no_wrap=True)
        for row in rows:
            grid.add_row(*map(Text, row))
        console.print(grid)

    table(f"{facts['recipe']}: base against student", score_table(facts))
    table("", difference_table(facts))
    for line in [*facts["verdict"], *(f"warning: {warning}" for warning in facts["warnings"])]:
        console.print(line, soft_wrap=True, markup=False)
    if facts.get("rounds"):
        table(f"round by round on {facts['rounds'][0]['suite']}", short_round_table(facts))
    if facts["curve"]:
        table(f"pass@1 % by temperature on {facts['curve'][0]['suite']}", curve_table(facts))
    table("planned, and what it took", plan_table(facts))
    for line in legend(facts):
        console.print(line, soft_wrap=True, markup=False)
    console.print("Not measured here:")
    for line in facts["not_measured"]:
        console.print(f"- {line}", soft_wrap=True)
    console.print(f"More in {run_dir}/report.md. Next:")
    console.print(f"  {facts['next']}", soft_wrap=True, markup=False)
    console.print(f"All of it on one page, with the samples: {run_dir}/report.html", soft_wrap=True, markup=False)
