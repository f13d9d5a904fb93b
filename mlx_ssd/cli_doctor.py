"""The command that looks at the machine: `mlx-ssd doctor`. Imports nothing heavy."""

from __future__ import annotations

import click

MARKS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def doctor_command(ctx: click.Context, as_json: bool) -> None:
    """Say whether this machine can do the work, and how to mend what keeps it from it.

    Takes three seconds at most; loads and downloads nothing. Exit 1 when something fails.
    """
    import dataclasses
    import json

    from mlx_ssd import doctor, machine

    findings = doctor.examine()
    verdict = doctor.verdict(findings)
    if as_json:
        checks = [{"name": name, **dataclasses.asdict(finding)} for name, finding in findings.items()]
        click.echo(json.dumps({"v": 1, "verdict": verdict, "checks": checks, "versions": machine.versions()}))
    else:
        for name, finding in findings.items():
            click.echo(f"{click.style(f'{finding.status:4}', fg=MARKS[finding.status])}  {name:12} {finding.found}")
            if finding.mend:
                click.echo(f"{'':19}-> {finding.mend}")
    if verdict == doctor.FAIL:
        ctx.exit(1)
