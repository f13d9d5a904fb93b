"""The frontier, of a run whose grades were written by hand, against the embedded model itself as the larger one."""

import json

import pytest
from click.testing import CliRunner

from mlx_ssd import assets
from mlx_ssd.bench import frontier as module
from mlx_ssd.bench.frontier import question_of
from mlx_ssd.bench.frontier_words import sentences
from mlx_ssd.cli import main
from mlx_ssd.controls import test_entries as entries_of
from mlx_ssd.errors import BadInput
from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Generation, Grade, Problem
from mlx_ssd.storage import write_records
from mlx_ssd.suites.evaluating import evaluate_suite
from tests.bench.test_rows import row
from tests.export.conftest import make_run

PROBLEMS = 6
SETTINGS = {
    "problems.test": {"source": "embedded", "limit": PROBLEMS},
    "evaluate.samples_per_problem": 2,
    "evaluate.pass_at": [1],
    "evaluate.max_tokens": 48,
    "evaluate.two_stage": True,
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Base: none solved; student: all. Two-stage decoding was never asked."""
    run = make_run(tmp_path_factory.mktemp("frontier") / "run")
    files = RunFiles(run)
    recipe = Recipe.load(files.recipe, SETTINGS)
    files.recipe.write_text(recipe.to_yaml())
    lines = assets.problems_path("test").read_text().splitlines()[:PROBLEMS]
    ids = [Problem.model_validate_json(line).id for line in lines]
    for entry in entries_of(recipe, run):
        if entry.label == "two-stage":
            continue
        keys = [{"problem_id": problem, "sample_index": i} for problem in ids for i in range(2)]
        of = {"prompt_ids": [1], "completion_ids": [1, 2], "finish_reason": "stop", "policy": entry.policy.name()}
        of |= {"seed": 0, "stream": "eval", "model": "", "template": ""}
        entry.generations.parent.mkdir(parents=True, exist_ok=True)
        write_records(entry.generations, [Generation(**key, **of) for key in keys])
        verdict = "pass" if entry.label == "student" else "wrong"
        write_records(entry.grades, [Grade(**key, verdict=verdict) for key in keys])
    return run


def measured(configurations, repetitions, sweeps):
    """Instead of processes: the fused student as fast as its base, and smaller than nothing else."""
    yield from [None] * (sweeps * len(configurations))
    for configuration in configurations:
        yield row(model=configuration.subject.name, adapter=configuration.subject.way, parameters=877_952)


def test_one_table_one_plot_and_what_they_say(graded, monkeypatch):
    monkeypatch.setattr(module, "in_sweeps", measured)
    found = CliRunner().invoke(main, ["frontier", str(graded), "embedded", "-p", "8", "-n", "4", "-r", "1"])
    assert found.exit_code == 0, found.output
    facts = json.loads((graded / "frontier.json").read_text())
    base, student, larger = facts["lines"]
    assert [line["role"] for line in facts["lines"]] == ["base", "student", "larger"]
    assert base["pass_at_1"]["mean"] == 0 and student["pass_at_1"]["mean"] == 1
    assert student["speed"]["adapter"] == "fused" and base["speed"]["adapter"] == "off"
    assert 0 < larger["pass_at_1"]["mean"] < 1  # it was really asked, and really graded
    ours = next(c for c in facts["comparisons"] if c["small"] == "student")
    assert ours["difference"]["mean"] == pytest.approx(1 - larger["pass_at_1"]["mean"])
    assert ours["memory_ratio"] == 1 and ours["decode_ratio"] == {"mean": 1, "low": 1, "high": 1}
    assert sentences(facts)[1] in found.output and "student - embedded (" in sentences(facts)[1]
    assert "![frontier](frontier.svg)" in (graded / "frontier.md").read_text()
    picture = (graded / "frontier.svg").read_text()
    assert all(f"--{kind}.{number}" in picture for kind in ("memory", "speed") for number in range(3))
    assert "embedded: " in picture and "drawn in frontier.svg" in found.output
    graded_once = sorted((graded / "frontier").rglob("*.jsonl"))
    times = [path.stat().st_mtime_ns for path in graded_once]
    assert CliRunner().invoke(main, ["frontier", str(graded), "embedded", "-p", "8", "-n", "4"]).exit_code == 0
    assert [path.stat().st_mtime_ns for path in graded_once] == times  # the same command asks nothing twice


def test_the_larger_model_is_asked_as_the_run_s_base_was(graded):
    recipe = Recipe.load(RunFiles(graded).recipe)
    question = question_of("embedded", recipe.evaluate.decoding, recipe, graded / "asked")
    assert question.recipe.evaluate.max_tokens == 48 and question.recipe.prompt == recipe.prompt
    (entry,) = question.entries()
    assert entry.policy == entries_of(recipe, graded)[0].policy
    assert evaluate_suite is module.evaluate_suite


def test_a_run_that_is_not_evaluated_is_refused(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(BadInput, match="is not evaluated yet"):
        module.frontier(run, ["embedded"], module.Load(8, 4))
    with pytest.raises(BadInput, match="is not a run directory"):
        module.frontier(tmp_path, ["embedded"], module.Load(8, 4))


@pytest.mark.parametrize(
    "low, high, says",
    [(0.01, 0.05, "it is better"), (-0.05, -0.01, "does not replace"), (-0.02, 0.02, "no difference is shown")],
)
def test_the_sentence_follows_the_interval(low, high, says):
    of = {"small": "student", "larger": "big", "larger_decoding": "t1", "memory_ratio": 0.25}
    of |= {"difference": {"mean": (low + high) / 2, "low": low, "high": high}}
    (sentence,) = sentences({"comparisons": [of]})
    assert says in sentence and sentence.endswith("0.25 of its MLX peak memory.")
    (sentence,) = sentences({"comparisons": [of | {"decode_ratio": {"mean": 3.0, "low": 2.5, "high": 3.5}}]})
    assert sentence.endswith("0.25 of its MLX peak memory, 3.00 [2.50, 3.50] times its decode tok/s.")
