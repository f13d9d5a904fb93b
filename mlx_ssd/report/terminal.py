"""report.json on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlx_ssd.report.markdown import lines_beside, table


def show(facts: dict[str, Any], console: Console | None = None) -> None:
    console = console or Console(highlight=False)
    header, rows = table(facts)
    grid = Table(title=f"{facts['recipe']}: base against student", title_justify="left")
    for name in header:
        grid.add_column(name, no_wrap=True)
    for index, row in enumerate(rows):
        grid.add_row(*map(Text, row), end_section=index == len(facts["scores"]) - 1)
    console.print(grid)
    for line in [*facts["verdict"], *lines_beside(facts)]:
        console.print(line, soft_wrap=True, markup=False)
    console.print("Not measured here:")
    for line in facts["not_measured"]:
        console.print(f"- {line}", soft_wrap=True)
    console.print("Next:")
    console.print(f"  {facts['next']}", soft_wrap=True, markup=False)
