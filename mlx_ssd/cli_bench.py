"""The commands that measure models: `mlx-ssd bench` and `mlx-ssd frontier`. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlx_ssd import downloads
from mlx_ssd.errors import BadInput


class Numbers(click.ParamType):
    """512 or 128,512,2048, as in llama-bench."""

    name = "N[,N…]"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r}: give whole numbers, with commas between them", param, ctx)


class Ways(click.ParamType):
    name = "off,on,fused"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        ways = value if isinstance(value, tuple) else tuple(value.split(","))
        if unknown := set(ways) - {"off", "on", "fused"}:
            self.fail(f"{', '.join(sorted(unknown))}: give some of off, on, fused", param, ctx)
        return ways


@click.command("bench")
@click.argument("subjects", metavar="MODEL|RUN…", nargs=-1, required=True)
@click.option("-p", "prompts", type=Numbers(), default=(512,), help="Prompt tokens; usually 512.")
@click.option("-n", "generated", type=Numbers(), default=(128,), help="Generated tokens; usually 128.")
@click.option("-b", "batches", type=Numbers(), default=(1,), help="Sequences side by side; usually 1.")
@click.option("-r", "repetitions", type=click.IntRange(1), default=5, show_default=True, help="After the warm-up.")
@click.option("--warmup", type=click.IntRange(0), default=1, show_default=True, help="Repetitions not counted.")
@click.option("--bits", type=Numbers(), default=(), help="4,8,16,32: quantize in memory; usually as stored.")
@click.option("--adapter", "ways", type=Ways(), default=(), help="Of a RUN; usually all three.")
@click.option("--arm", default="student", show_default=True, help="Of a RUN, which student.")
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), default="auto")
@click.option("--compare", is_flag=True, help="Take turns, and give ratios to the first with intervals.")
@click.option("-o", "output", type=click.Choice(["table", "md", "jsonl", "csv"]), default="table", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Append each row to this file, in JSON lines.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw decode tok/s to this SVG file.")
@click.option("--yes", is_flag=True, help="Download what is needed without asking.")
def bench_command(
    subjects: tuple[str, ...],
    prompts: tuple[int, ...],
    generated: tuple[int, ...],
    batches: tuple[int, ...],
    repetitions: int,
    warmup: int,
    bits: tuple[int, ...],
    ways: tuple[str, ...],
    arm: str,
    dtype: str,
    compare: bool,
    output: str,
    out: Path | None,
    plot: Path | None,
    yes: bool,
) -> None:
    """Measure speed and memory: one row a configuration, each in a process of its own.

    MODEL is a folder, a hub name or "embedded"; a RUN is measured as base, with its adapter, and with the adapter
    fused. Ctrl-C leaves the finished rows.
    """
    from mlx_ssd import machine
    from mlx_ssd.bench.benching import bench
    from mlx_ssd.bench.configurations import configurations, subjects_of
    from mlx_ssd.bench.tables import FORMATS, compared

    if hint := machine.slow_blas_hint():
        click.echo(f"note: {hint}", err=True)
    _confirm(subjects, yes)
    found = [subject for what in subjects for subject in subjects_of(what, ways, arm, dtype)]
    wanted = configurations(found, bits, prompts, generated, batches)
    if compare and len(wanted) < 2:
        raise BadInput("--compare: give two configurations, such as two models, or a run with --adapter off,fused")
    rows, comparisons = [], []
    try:
        for row in bench(wanted, repetitions, warmup, compare, out):
            (comparisons if "ratios" in row else rows).append(row)
    finally:  # interrupted or failed: what is finished is shown
        if rows:
            click.echo(FORMATS[output](rows), nl=False)
            if plot:
                from mlx_ssd.bench.plots import rates

                rates(rows, plot)
        if comparisons:
            click.echo(compared(comparisons, output), nl=False)


def _confirm(subjects: tuple[str, ...], yes: bool) -> None:
    from mlx_ssd.sections import Model

    for what in subjects:
        if what.startswith("runs/") and not Path(what).exists():
            raise BadInput(f"{what} does not exist; give a run directory, a folder with a model, or a name on the hub")
        if not (Path(what) / "recipe.yaml").exists():
            downloads.confirm_model(Model(path=what), yes)


@click.command("frontier")
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("larger", metavar="LARGER…", nargs=-1, required=True)
@click.option("-p", "prompt", type=click.IntRange(1), default=512, show_default=True, help="Prompt tokens.")
@click.option("-n", "generated", type=click.IntRange(2), default=128, show_default=True, help="Generated tokens.")
@click.option("-r", "repetitions", type=click.IntRange(1), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print frontier.json instead of the table.")
@click.option("--yes", is_flag=True, help="Download what is needed without asking.")
def frontier_command(
    run_dir: Path, larger: tuple[str, ...], prompt: int, generated: int, repetitions: int, as_json: bool, yes: bool
) -> None:
    """Ask whether a small self-distilled model replaces a larger one: pass@1 beside memory and speed.

    RUN is a finished run, whose own scores count for base and students; LARGER, a folder or a hub name, solves the
    run's test problems. Writes frontier.json, .md and .svg there; an interrupted command goes on.
    """
    import json

    from mlx_ssd.bench.configurations import Load, configurations, subjects_of
    from mlx_ssd.bench.frontier import frontier
    from mlx_ssd.bench.frontier_words import rows_of, sentences
    from mlx_ssd.bench.tables import aligned

    _confirm(larger, yes)
    for what in larger:
        configurations(subjects_of(what), (), (prompt,), (generated,))  # lengths that it was not made for are refused
    facts = frontier(run_dir, larger, Load(prompt, generated), repetitions)
    if as_json:
        click.echo(json.dumps(facts))
        return
    header, rows = rows_of(facts)
    click.echo(aligned(dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))))
    for sentence in sentences(facts):
        click.echo(sentence)
    drawn = ", drawn in frontier.svg" if (run_dir / "frontier.svg").exists() else ""
    click.echo(f"More in {run_dir}/frontier.md{drawn}.")
