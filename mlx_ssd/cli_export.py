"""The command that makes a student into what an app loads: `mlx-ssd export`. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlx_ssd.errors import BadInput


@click.command("export")
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--target", "targets", multiple=True, metavar="NAME", help="adapter, …; an unknown name lists them all.")
@click.option("--all", "everything", is_flag=True, help="Every target that this model and installation allow.")
@click.option("--precision", help="Other than the target's usual one; an unknown name lists them.")
@click.option("--arm", default="student", show_default=True, help="Which student of the run.")
@click.option("--force", is_flag=True, help="Replace what is there.")
@click.option("--check", is_flag=True, help="Verify what is there, and write no export.")
@click.option("--grade", is_flag=True, help="Let it solve the run's test problems too, beside the student.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a target.")
def export_command(
    run_dir: Path,
    targets: tuple[str, ...],
    everything: bool,
    precision: str | None,
    arm: str,
    force: bool,
    check: bool,
    grade: bool,
    as_json: bool,
) -> None:
    """Write a student as other tools and apps load it, and prove on each artefact that the gain survived.

    RUN is a run directory with a trained adapter. Each target gets a folder in RUN/export, with verify.json.

    --target preset writes two-stage decoding of the base as a sampler for mlx-lm, after several rounds with a stage for
    each. It needs no training: RUN may be a run that has not begun, or a probe's folder.
    """
    import json

    from mlx_ssd.export import PRESET
    from mlx_ssd.export.exporting import all_targets, export_preset, export_run, place
    from mlx_ssd.export.grading import in_words

    if bool(targets) == everything:
        raise BadInput("give --target NAME, once or more, or --all")
    if precision and len(targets) != 1:
        raise BadInput("--precision belongs to one --target")
    if precision and targets == (PRESET,):
        raise BadInput("--target preset has no precision: it is a decoding rule, no weights")
    wanted = [(name, precision) for name in targets if name != PRESET]
    if PRESET in targets:
        _preset(export_preset(run_dir, arm, force, check), place(run_dir, arm, PRESET), as_json)
    if everything:
        wanted, notes = all_targets(run_dir, arm, replace=force or check)
        for note in notes:
            click.echo(f"note: {note}", err=True)
    for facts in export_run(run_dir, wanted, arm, force, check, grade) if wanted or everything else ():
        if as_json:
            click.echo(json.dumps(facts))
        else:
            kept, size = facts["kept"], sum(facts["bytes"].values())
            click.echo(
                f"{facts['target']} {facts['precision']}: {facts['verdict']}, {size / 1e6:,.1f} MB, logits within "
                f"{facts['conversion']['max_abs']:.2g}, KL from the student {kept['kl_exported']:.2g} "
                f"(of the base {kept['kl_base']:.2g}); read by {facts['checked_by']}; "
                f"in {place(run_dir, arm, facts['target'], facts['precision'])}"
            )
            if grade and "graded" in facts:
                click.echo(f"  {facts['graded']['verdict']}: {in_words(facts['graded'])}")


def _preset(facts: dict[str, Any], folder: Path, as_json: bool) -> None:
    import json

    if as_json:
        click.echo(json.dumps(facts))
        return
    click.echo(
        f"preset: {facts['verdict']}, probabilities within {facts['probabilities']['max_abs']:.1g} of {facts['kind']} "
        f"decoding's, {facts['draws']['count']:,} draws within {facts['draws']['largest_deviations']:.1f} standard "
        f"deviations; a sampler for mlx-lm, in {folder}"
    )
