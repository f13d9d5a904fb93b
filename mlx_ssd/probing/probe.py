"""Ask, complete, answer: from a recipe to the room in it -> DIR/{probe.json,probe.md,recipe.yaml}."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mlx_ssd import machine
from mlx_ssd.controls import Entry
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.errors import BadInput, Interrupted, WorkFailed
from mlx_ssd.probing import words
from mlx_ssd.probing.question import PROBLEMS, SAMPLES, Question, ask, recipe_of
from mlx_ssd.probing.room import FEWEST, estimate
from mlx_ssd.problems import read_problems
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Generation, Grade, Problem
from mlx_ssd.statistics import mean_pass_at_k
from mlx_ssd.storage import Journal, run_lock, write_atomic, write_json
from mlx_ssd.supervision import supervise


def probe(
    what: str | Path | Recipe,
    out: str | Path | None = None,
    problems: int = PROBLEMS,
    samples: int = SAMPLES,
    policies: Sequence[DecodingPolicy] = (),
    overrides: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The room that self-distillation has, without training; the facts of DIR/probe.json.

    what: a recipe, its name or file, or a model (then quickstart's settings with it). policies: to sample training
    data with; by default the recipe's own and those around it. What an interrupted probe drew in `out` (default
    runs/probe-NAME) is used. Raises BadInput, WorkFailed, or Interrupted (exit 130).
    """
    if problems < FEWEST:
        raise BadInput(f"--problems: a probe needs at least {FEWEST}")
    if samples < 2:
        raise BadInput("--samples: a probe needs at least 2 a problem, to tell how much one draw varies")
    recipe = what if isinstance(what, Recipe) else recipe_of(what, overrides)
    directory = Path(out) if out else Path("runs") / f"probe-{recipe.name}"
    if directory.exists() and not directory.is_dir():
        raise BadInput(f"{directory} is a file, not a folder; choose another --out")
    machine.keep_awake()  # before anything is downloaded
    question = ask(recipe, directory, problems, samples, policies)
    directory.mkdir(parents=True, exist_ok=True)
    with run_lock(directory) as lock:
        question.save()
        _complete(question, lock)
        facts = answer(question)
        write_atomic(directory / "recipe.yaml", words.recipe_text(question.recipe, facts))
        write_json(directory / "probe.json", facts)
        write_atomic(directory / "probe.md", words.markdown(facts))
    return facts


def _complete(question: Question, lock: int) -> None:
    command = [sys.executable, "-P", "-m", "mlx_ssd.probing", str(question.directory)]
    again = "the same command goes on where it stopped, with --set evaluate.memory_gb=… in less memory"
    code = supervise(command, lock, name="the probe", directory=question.directory, again=again)
    if code == 130:
        raise Interrupted("interrupted; the same command goes on from there")
    if code:  # it has said why
        raise WorkFailed("") if code == 1 else BadInput("")


def answer(question: Question) -> dict[str, Any]:
    """The facts, from the grades that lie in the question's folder."""
    recipe, problems, base = question.recipe, question.problems(), question.base()
    entries = question.entries()
    passed = np.stack([_passed(entry, problems, question.samples) for entry in entries], axis=1)
    of = {entry: number for number, entry in enumerate(entries)}
    test = _size_of_test(recipe, len(problems)), recipe.evaluate.samples_per_problem
    baselines = [of[entry] for entry in base]

    def line(entry: Entry) -> dict[str, Any]:
        return {**asdict(entry.policy.stages[-1]), "pass_at": _pass_at(passed[:, of[entry]], recipe.evaluate.pass_at)}

    def looked_at(*taught: DecodingPolicy) -> dict[str, Any]:
        tried = question.after(*taught)
        found = estimate(passed, [of[entry] for entry in tried], baselines, *test)
        return {
            "train": asdict(taught[0]),
            "best": line(entries[found.best]),
            "at_end_of_grid": entries[found.best] in (tried[0], tried[-1]),
            "room": asdict(found.room),
            "measured": asdict(found.measured),
            "tried": [line(entry) for entry in tried],
        }

    policies = sorted(map(looked_at, question.policies), key=lambda policy: -policy["room"]["mean"])
    # The best of several policies looks better than it is, as the best of several temperatures does.
    two_stage = [of[entry] for train in question.policies for entry in question.after(train)]
    second = {}
    if rounds := question.two_rounds:
        more = estimate(passed, [of[entry] for entry in question.after(*rounds)], two_stage, *test)
        second = {"second_round": looked_at(*rounds) | {"then": asdict(rounds[1]), "over_one": asdict(more.room)}}
    overall = estimate(passed, two_stage, baselines, *test)
    decoding_alone = estimate(passed, baselines, [of[base[0]]], *test)
    own = [(g.model, g.finish_reason) for g in Journal(base[0].generations, Generation).each()]
    facts = {
        "v": 1,
        "recipe": recipe.name,
        "model": {"path": recipe.model.path, "revision": own[0][0]},
        "suite": base[0].suite,
        "problems": len(problems),
        "samples_per_problem": question.samples,
        "test": {"problems": test[0], "samples_per_problem": test[1]},
        "base": {
            "own": line(base[0]),
            "best": line(entries[overall.baseline]),
            "tried": [line(entry) for entry in base],
            "gain_of_best_over_own": asdict(decoding_alone.room),
        },
        "policies": policies,
        **second,
        "room": asdict(overall.room),
        "measured": asdict(overall.measured),
        "cut_at_max_tokens": sum(reason == "length" for _, reason in own) / len(own),
        "not_graded": int(np.isnan(passed).sum()),
        "recipe_file": str(question.directory / "recipe.yaml"),
    }
    return facts | {"verdict": words.verdict(facts), "warnings": words.warnings(facts)}


def _passed(entry: Entry, problems: list[Problem], samples: int) -> np.ndarray:
    """[problems, samples]: 1 pass, 0 not, nan not graded."""
    latest = {grade.key: grade.verdict for grade in Journal(entry.grades, Grade).read()}
    verdicts = [[latest[problem.id, index] for index in range(samples)] for problem in problems]
    return np.array([[np.nan if v == "harness_error" else float(v == "pass") for v in row] for row in verdicts])


def _pass_at(passed: np.ndarray, ks: Sequence[int]) -> dict[str, float]:
    """pass@k for those k that so many samples can tell, and always pass@1."""
    graded, passes = (~np.isnan(passed)).sum(axis=1), np.nansum(passed, axis=1).astype(int)
    values = {str(k): mean_pass_at_k(graded, passes, k) for k in sorted({1, *ks})}
    return {k: value for k, value in values.items() if value is not None}


def _size_of_test(recipe: Recipe, otherwise: int) -> int:
    """How many problems the recipe's evaluation will count; where that is not known, as many as here."""
    if recipe.problems.test.source == "rstar_coder":
        return otherwise
    return sum(bool(problem.tests) for problem in read_problems(recipe.problems.test, "test")) or otherwise
