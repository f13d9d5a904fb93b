"""The command that looks at locks and forks: `mlx-ssd analyze`. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

import click

from mlx_ssd.errors import BadInput


@click.command("analyze")
@click.argument("run_dir", metavar="[RUN]", required=False, type=click.Path(path_type=Path))
@click.option("--texts", type=click.Path(path_type=Path), help="Your own texts, JSON lines, in place of the answers.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for --texts or --toy.")
@click.option("--arm", help="Which student of the run; usually all, with --texts the main one.")
@click.option("--json", "as_json", is_flag=True, help="Print analysis.json instead of the table.")
@click.option("--toy", is_flag=True, help="The paper's state machine: figure and numbers, no model.")
@click.option("--redo", is_flag=True, help="Throw away results that were made with other settings.")
def analyze_command(
    run_dir: Path | None, texts: Path | None, out: Path | None, arm: str | None, as_json: bool, toy: bool, redo: bool
) -> None:
    """Show what training changed at every token: where it removed tail mass, and where choice was kept.

    Base and students read the same texts. By default these are the base's answers to the test problems of RUN, a run
    directory; with --texts your own, a line each: {"prompt": "…", "completion": "…"} or {"text": "…"}.
    """
    import json

    if toy:
        from mlx_ssd.analysis.toy import show

        show(out)
        return
    if run_dir is None:
        raise BadInput("analyze needs a run directory, such as runs/quickstart, or --toy")
    if (texts is None) != (out is None):
        raise BadInput("--texts and --out go together: your own texts, and a folder for what is found")
    if texts:
        from mlx_ssd.analysis.owning import analyse_own

        analyse_own(run_dir, arm or "student", texts, out)
        folder, arm = out, arm or "student"
    else:
        folder = _of_run(run_dir, arm, redo)
    from mlx_ssd.analysis import store, words

    for name in [arm] if arm else store.arms(folder):
        summary = store.summary(folder, name)
        if as_json:
            click.echo(json.dumps(summary))
            continue
        for line in words.lines(summary):
            click.echo(line)


def _of_run(run_dir: Path, arm: str | None, redo: bool) -> Path:
    """The run's own analysis, made where it is not there yet: its folder."""
    from mlx_ssd import pipeline
    from mlx_ssd.layout import RunFiles
    from mlx_ssd.recipe import Recipe
    from mlx_ssd.sections import Analysis

    files = RunFiles(run_dir)
    if not files.recipe.exists():
        raise BadInput(f"{run_dir} is not a run directory; it has no recipe.yaml")
    recipe = Recipe.load(files.recipe)
    students = ["student", *(found.name for found in recipe.arms)]
    if arm and arm not in students:
        raise BadInput(f"--arm {arm}: {run_dir} has {', '.join(students)}")
    if recipe.analyze is None:
        recipe = recipe.model_copy(update={"analyze": Analysis()})
    pipeline.run(recipe, run_dir, only=["analyze"], redo=redo)
    return files.analysis
