"""Nothing is downloaded unasked: what it is and how large, put to the user."""

from __future__ import annotations

from typing import Any

import click

from mlx_ssd import machine


def confirm(recipe: Any, yes: bool) -> None:
    """Say how much would be downloaded, and ask, before anything is."""
    from mlx_ssd import problems

    confirm_model(recipe.model, yes)
    problems.confirm_downloads(recipe.problems, _asking(yes))


def confirm_model(model: Any, yes: bool) -> None:
    from mlx_ssd import models

    models.confirm_download(model, _asking(yes))


def confirm_problems(source: Any, yes: bool) -> None:
    from mlx_ssd import problems
    from mlx_ssd.sections import Problems

    problems.confirm_downloads(Problems(test=source), _asking(yes))


def _asking(yes: bool) -> Any:
    """Puts a question to the user, or answers it with --yes; None where nobody can be asked."""
    import sys

    def ask(question: str) -> bool:
        if yes:
            click.echo(f"note: {question} Yes.", err=True)
        agreed = yes or click.confirm(question, err=True)
        if agreed:
            machine.keep_awake()  # a night may begin with it
        return agreed

    return ask if yes or sys.stdin.isatty() else None
