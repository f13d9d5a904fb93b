"""The command line: parse, delegate, print. Imports nothing heavy, so that --help is immediate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from mlx_ssd import __version__, downloads
from mlx_ssd.cli_analyze import analyze_command
from mlx_ssd.cli_bench import bench_command, frontier_command
from mlx_ssd.cli_doctor import doctor_command
from mlx_ssd.cli_export import export_command
from mlx_ssd.cli_parity import parity_command
from mlx_ssd.cli_plan import begin, overrides_of, plan_command, sized_for
from mlx_ssd.cli_report import report_command
from mlx_ssd.cli_suites import eval_command, grade_command
from mlx_ssd.cli_work import work_command
from mlx_ssd.errors import BadInput, SsdError

STAGE_HELP = {
    "sample": "Draw one raw solution a problem from the frozen model.",
    "curate": "Filter the samples by syntax alone and write the training rows.",
    "train": "Train a LoRA adapter on the model's own tokens.",
    "evaluate": "Let base and students solve the test problems, and grade them.",
    "score": "From grades to pass@k, differences and the curve.",
    "report": "Write report.json, report.md and report.html, and print the table.",
}


class Group(click.Group):
    """Turns what went wrong into one sentence and an exit code: 1 failed, 2 bad input, 130 interrupted."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SsdError as error:
            if str(error):  # empty when the stage has said it already
                click.echo(f"mlx-ssd: {error}", err=True)
            ctx.exit(error.exit_code)
        except BrokenPipeError:  # `| head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            ctx.exit(0)
        except OSError as error:
            from mlx_ssd.storage import explain_os_error

            click.echo(f"mlx-ssd: {explain_os_error(error)}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("mlx-ssd: interrupted", err=True)
            ctx.exit(130)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Make a local code model better with nothing but the model itself (Simple Self-Distillation).

    \b
    mlx-ssd run                       the whole loop on the embedded model, in minutes
    mlx-ssd plan RECIPE               memory and hours, before anything loads
    mlx-ssd probe MODEL               what there is to gain, before any training
    mlx-ssd try runs/quickstart "…"   ask base and student the same thing
    mlx-ssd eval RUN --suite NAME     base and students on another problem set
    mlx-ssd grade FILE --suite NAME   score saved generations
    mlx-ssd export RUN --target NAME  what an app loads, proved to have kept the gain
    mlx-ssd analyze RUN               locks and forks: what training changed
    mlx-ssd parity RUN                what MLX computed, beside PyTorch
    mlx-ssd bench MODEL|RUN           speed and memory: base, with adapter, fused
    mlx-ssd frontier RUN LARGER       does a small student replace a larger model?
    mlx-ssd work HOST:PORT            lend this machine to a run on another
    mlx-ssd recipes                   what else can be run
    mlx-ssd doctor                    whether this machine can do it
    """
    import warnings

    warnings.formatwarning = lambda message, *_: f"note: {message}\n"


def _settings_options(command: Any) -> Any:
    for option in (
        click.option(
            "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting of the recipe."
        ),
        click.option("--model", metavar="MODEL", help="Folder or hub name of the model (sets model.path)."),
        click.option("--redo", is_flag=True, help="Throw away results that were made with other settings."),
        click.option("--yes", is_flag=True, help="Download what is needed without asking."),
    ):
        command = option(command)
    return command


@main.command("run")
@click.argument("recipe", default="quickstart")
@click.option("--out", type=click.Path(path_type=Path), help="Run directory (default: runs/NAME).")
@click.option("--dry-run", is_flag=True, help="Print the resolved recipe and what would run; load nothing.")
@click.option("--hours", type=float, help="Choose the number of prompts, and the rows, for so long here.")
@click.option("--workers-at", metavar="HOST:PORT", help="Let other machines draw too: there, `mlx-ssd work HOST:PORT`.")
@_settings_options
def run_command(
    recipe: str,
    out: Path | None,
    dry_run: bool,
    hours: float | None,
    workers_at: str | None,
    overrides: tuple[str, ...],
    model: str | None,
    redo: bool,
    yes: bool,
) -> None:
    """Run every stage of a recipe; go on where it stopped.

    RECIPE is a name or a YAML file; default: quickstart. What is done is skipped, what was interrupted goes on.
    """
    from mlx_ssd import machine, pipeline, problems
    from mlx_ssd.recipe import Recipe

    if workers_at:
        from mlx_ssd.distributed import address

        address.let_workers_in(workers_at)
    resolved = Recipe.load(recipe, overrides_of(overrides, model))
    if hours is not None:
        resolved = sized_for(resolved, hours, yes)
    if dry_run:
        files, plans = pipeline.plan(resolved, out)
        click.echo(resolved.to_yaml(), nl=False)
        click.echo(f"\n# run directory: {files.directory}")
        for plan in plans:
            click.echo(f"# {plan.name}: {plan.action}" + (f" (made with {plan.difference})" if plan.difference else ""))
        if resolved.rounds.last > 1:
            click.echo(f"# each further round, {resolved.rounds.last} at most: decided by the validation of the last")
        return
    problems.refuse_missing(resolved.problems)
    hint = machine.slow_blas_hint()
    if hint:
        click.echo(f"note: {hint}", err=True)
    planned = begin(resolved)
    downloads.confirm(resolved, yes)
    planned = planned or begin(resolved, fetch=True)  # what is known now: still before the weights are fetched
    files = pipeline.run(resolved, out, redo=redo, planned=planned)
    _print_report(files)


def _stage_command(name: str) -> click.Command:
    @click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
    @click.option("--recipe", help="Recipe for a new run directory (default: the one in RUN, else quickstart).")
    @_settings_options
    def command(
        run_dir: Path, recipe: str | None, overrides: tuple[str, ...], model: str | None, redo: bool, yes: bool
    ) -> None:
        from mlx_ssd import pipeline
        from mlx_ssd.layout import RunFiles
        from mlx_ssd.recipe import Recipe

        files = RunFiles(run_dir)
        source = recipe or (files.recipe if files.recipe.exists() else "quickstart")
        resolved = Recipe.load(source, overrides_of(overrides, model))
        downloads.confirm(resolved, yes)
        pipeline.run(resolved, run_dir, only=[name], redo=redo)
        if name == "report":
            _print_report(files)

    return click.command(name, help=STAGE_HELP[name] + " RUN is a run directory.")(command)


for _name in STAGE_HELP:
    _command = _stage_command(_name)
    main.add_command(report_command(_command) if _name == "report" else _command)


main.add_command(eval_command)
main.add_command(grade_command)
main.add_command(export_command)
main.add_command(parity_command)
main.add_command(analyze_command)
main.add_command(doctor_command)
main.add_command(plan_command)
main.add_command(bench_command)
main.add_command(frontier_command)
main.add_command(work_command)


@main.command("probe")
@click.argument("what", metavar="MODEL|RECIPE", default="quickstart")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the answers (default: runs/probe-NAME).")
@click.option("--problems", type=int, help="Of the validation problems, at most so many; usually 100.")
@click.option("--samples", type=int, help="Completions of each problem under each decoding; usually 5.")
@click.option(
    "--policy", "policies", multiple=True, metavar="T,K,P", help="Try this sampling policy instead of the usual ones."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting of the recipe.")
@click.option("--yes", is_flag=True, help="Download what is needed without asking.")
def probe_command(
    what: str,
    out: Path | None,
    problems: int | None,
    samples: int | None,
    policies: tuple[str, ...],
    overrides: tuple[str, ...],
    yes: bool,
) -> None:
    """Estimate, before any training, what self-distillation can gain and with which settings.

    RECIPE is a name or a YAML file; MODEL a folder, a hub name or "embedded", then with quickstart's settings.
    Only validation problems are looked at. Writes a recipe; an interrupted probe goes on.
    """
    from mlx_ssd import machine
    from mlx_ssd.probing import probe, words
    from mlx_ssd.probing.question import recipe_of

    if hint := machine.slow_blas_hint():
        click.echo(f"note: {hint}", err=True)
    size = {name: value for name, value in (("problems", problems), ("samples", samples)) if value is not None}
    chosen = [_policy(text) for text in policies]
    recipe = recipe_of(what, overrides_of(overrides, None))
    downloads.confirm(recipe, yes)
    words.show(probe(recipe, out, policies=chosen, **size))


def _policy(text: str) -> Any:
    from mlx_ssd.decoding.policy import DecodingPolicy

    try:
        temperature, top_k, top_p = text.split(",")
        return DecodingPolicy(float(temperature), int(top_k), float(top_p))
    except ValueError:
        raise BadInput(f"--policy {text}: write it as T,K,P, for example --policy 1.6,20,0.8") from None


@main.group("recipes", invoke_without_command=True)
@click.pass_context
def recipes_command(ctx: click.Context) -> None:
    """List the recipes; `recipes show NAME` prints one."""
    if ctx.invoked_subcommand is None:
        from mlx_ssd import recipe

        for name in recipe.names():
            first = recipe.find(name).read_text(encoding="utf-8").splitlines()[0]
            click.echo(f"{name:24} {first.lstrip('# ')}")


@recipes_command.command("show")
@click.argument("name")
def show_recipe(name: str) -> None:
    """Print a recipe's file."""
    from mlx_ssd import recipe

    click.echo(recipe.find(name).read_text(encoding="utf-8"), nl=False)


@main.command("try")
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("prompt")
@click.option("--sample", "sample_index", default=0, show_default=True, help="Another number, another draw.")
def try_command(run_dir: Path, prompt: str, sample_index: int) -> None:
    """Let base and students answer side by side.

    RUN is a run directory with a trained adapter; \\n in PROMPT is a new line."""
    import subprocess
    import sys

    from mlx_ssd import machine
    from mlx_ssd.layout import RunFiles

    files = RunFiles(run_dir)
    if not files.adapter.exists():
        raise BadInput(f"{run_dir} has no trained adapter; run `mlx-ssd run --out {run_dir}` first")
    command = [sys.executable, "-P", "-m", "mlx_ssd.answer", str(run_dir), prompt, str(sample_index)]
    code = subprocess.run(command, env=machine.stage_environment() | {"COLUMNS": str(_columns())}).returncode
    if code:
        raise click.exceptions.Exit(code if code > 0 else os.EX_SOFTWARE)


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size((100, 24)).columns


def _print_report(files: Any) -> None:
    from mlx_ssd.report.terminal import show
    from mlx_ssd.storage import read_json

    show(read_json(files.report_json), str(files.directory))
