"""What `mlx-ssd grade` and `mlx-ssd eval` print."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlx_ssd.report.markdown import difference_table, percent, score_table


def show_grades(facts: dict[str, Any], console: Console | None = None) -> None:
    """The facts of `grade_file`."""
    console = console or Console(highlight=False)
    few, many = facts["samples_per_problem"]
    each = f"{few}" if few == many else f"{few} to {many}"
    rows = [[f"pass@{k} %", _percent(value)] for k, value in facts["pass_at"].items()]
    for level, means in facts["pass_at_by_difficulty"].items():
        if means:
            k = min(means)
            rows.append([f"pass@{k} %, {level}", f"{100 * means[k]:.1f}"])
    total = facts["samples"]
    rows += [[verdict, f"{count} of {total}"] for verdict, count in facts["verdicts"].items()]
    _table(console, f"{facts['suite']}: {facts['problems']} problems, {each} samples each", ["", "score"], rows)
    lines = ["In brackets: 95 % bootstrap intervals over problems."]
    if 1 not in facts["pass_at"]:
        lines = ["There is no score: of some problem no program could be graded."]
    if none := facts["extraction"].get("none"):
        lines.append(f"{none} of {total} answers held no program in a fenced block.")
    if continued := facts["extraction"].get("continued"):
        lines.append(f"{continued} of {total} answers were taken as going on from the problem's code.")
    if untested := facts["problems"] - facts["graded_problems"]:
        lines.append(f"{untested} problems have no tests and are not in the score.")
    if missing := facts["problems_without_completion"]:
        lines.append(f"{missing} problems have no completion and are not in the score.")
    if broken := facts["verdicts"].get("harness_error"):
        lines.append(f"{broken} programs could not be run as they should; they count neither way.")
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def show_scores(facts: dict[str, Any], file: str, console: Console | None = None) -> None:
    """The facts of `evaluate_suite`, which lie in `file`."""
    console = console or Console(highlight=False)
    first = facts["scores"][0]
    header, rows = score_table(facts)
    _table(console, f"{facts['model']} on {facts['suite']}", header, rows)
    header, rows = difference_table(facts)
    if rows and len(header) > 1:
        _table(console, "", header, rows)
    console.print(
        f"{first['problems']} problems, {first['samples_per_problem']} samples each; in brackets: 95 % bootstrap "
        f"intervals over problems. Decodings: {', '.join(sorted({s['decoding'] for s in facts['scores']}))}.",
        soft_wrap=True,
        markup=False,
    )
    for score in facts["scores"]:
        if cut := score["finish_reasons"].get("length"):
            total = sum(score["finish_reasons"].values())
            line = f"{score['arm']}: {cut} of {total} answers were cut at {facts['max_tokens']} tokens (--max-tokens)."
            console.print(line, soft_wrap=True, markup=False)
    console.print(f"More in {file}", soft_wrap=True, markup=False)


def _percent(value: dict[str, float]) -> str:
    return percent(value) if "low" in value else f"{100 * value['mean']:.1f}"


def _table(console: Console, title: str, header: list[str], rows: list[list[str]]) -> None:
    grid = Table(title=title, title_justify="left")
    for name in header:
        grid.add_column(name, no_wrap=True)
    for row in rows:
        grid.add_row(*map(Text, row))
    console.print(grid)
