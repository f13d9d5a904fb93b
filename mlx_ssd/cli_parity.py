"""The command that puts MLX beside PyTorch: `mlx-ssd parity`. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

import click

from mlx_ssd.errors import WorkFailed


@click.command("parity")
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--arm", default="student", show_default=True, help="Which student of the run.")
@click.option("--json", "as_json", is_flag=True, help="Print parity.json instead of the table.")
def parity_command(run_dir: Path, arm: str, as_json: bool) -> None:
    """Compute what a run computes in MLX a second time in PyTorch, and say how far the two are apart.

    RUN is a run directory with a trained adapter. Writes parity.json there; exit 1 when a row fails. A model too large
    for this machine in float32 is compared layer by layer.
    """
    import json

    from mlx_ssd.parity.checking import compare_run, show

    facts = compare_run(run_dir, arm)
    if as_json:
        click.echo(json.dumps(facts))
    else:
        show(facts)
    if failed := [row["quantity"] for row in facts["rows"] if row["verdict"] == "fail"]:
        raise WorkFailed(f"{', '.join(failed)}: MLX is further from PyTorch than its tolerance")
