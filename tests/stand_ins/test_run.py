"""`mlx-ssd run mac-4b-instruct --model STANDIN`: every stage of the real recipe, in tiny sizes, on each stand-in."""

import json

import mlx.core as mx
import mlx_lm
import pytest
from mlx.utils import tree_flatten

from mlx_ssd.layout import MAIN, RunFiles
from mlx_ssd.prompts import render
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Generation, Problem, Sample, TrainingRow
from mlx_ssd.storage import Journal
from tests import faults

PROBLEMS, TESTS, TOKENS = 4, 2, 16
SMALL = (
    "--set", f"problems.train={{source: embedded, limit: {PROBLEMS}}}",
    "--set", f"problems.test.limit={TESTS}",
    "--set", f"sample.max_tokens={TOKENS}",
    "--set", "train.rank=4",
    "--set", "train.rows_per_step=2",  # two steps
    "--set", "train.validation=null",  # all rows are trained on
    "--set", "evaluate.samples_per_problem=2",
    "--set", "evaluate.pass_at=[1, 2]",
    "--set", f"evaluate.max_tokens={TOKENS}",
    "--set", "evaluate.base_best=null",
    # Random weights write a line of nonsense, which is what a stub looks like.
    "--set", "curate.drop_stubs=false",
)  # fmt: skip
# SmolLM2 is whole, so it gets less to do: no control, no analysis. Soft targets take their turn on the dense stand-in.
MORE = {
    "qwen3": ("--set", "train.targets=distribution"),
    "qwen3-moe": (),
    "smollm2": ("--set", "evaluate.two_stage=false", "--set", "analyze=null", "--set", "train.num_layers=4"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_run_is_whole(name, stand_in, tmp_path):
    model, out = stand_in(name), tmp_path / "run"
    arguments = ("run", "mac-4b-instruct", "--model", str(model), "--out", str(out), *SMALL, *MORE[name])
    process = faults.run(*arguments, env=faults.environment("openblas"))
    assert process.returncode == 0, process.stderr

    files, recipe = RunFiles(out, MAIN), Recipe.load(out / "recipe.yaml")
    tokenizer = mlx_lm.utils.load_tokenizer(model)
    samples = Journal(files.samples, Sample).read()
    assert sorted(s.key for s in samples) == [(f"train-{i:04}", 0) for i in range(PROBLEMS)]
    rows = Journal(files.rows, TrainingRow).read()
    assert [row.completion_ids for row in rows] == [s.completion_ids for s in sorted(samples, key=lambda s: s.key)]
    entries = [json.loads(line) for line in files.training_log.read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [1, 2]
    assert sum(entry["completion_tokens"] for entry in entries) == sum(len(s.completion_ids) for s in samples)
    if name != "smollm2":
        # Never an end of turn by chance among 151,936 tokens: every answer is cut, kept, and trained as it is.
        assert {(s.finish_reason, len(s.completion_ids)) for s in samples} == {("length", TOKENS)}
        assert max(token for s in samples for token in s.completion_ids) > 100_000

    controls = recipe.evaluate.two_stage
    journals = sorted(out.glob("eval/*/*.generations.jsonl"))
    assert [path.parent.name for path in journals] == ["base"] * (1 + controls) + ["student"]
    for path in journals:
        generations = Journal(path, Generation).read()
        assert sorted(g.key for g in generations) == [(f"test-{i:04}", j) for i in range(TESTS) for j in range(2)]
        grades = path.with_name(path.name.replace("generations", "grades")).read_text().splitlines()
        assert len(grades) == len(generations)
    # A prompt is sampled, trained and evaluated in one and the same rendering.
    problem = Journal(files.problems, Problem).read()[0]
    prompt_ids = render(tokenizer, problem.prompt, recipe.prompt)
    for record in (*samples, *rows):
        assert (record.prompt_ids == prompt_ids) == (record.problem_id == problem.id)

    base, _ = mlx_lm.load(str(model))
    student, _ = mlx_lm.load(str(model), adapter_path=str(files.adapter))
    adapter = [key for key, _ in tree_flatten(student.parameters()) if key.endswith("lora_b")]
    assert len(adapter) == {"qwen3": 2 * 7, "qwen3-moe": 2 * (4 + 1), "smollm2": 4 * 7}[name]
    changed = mx.abs(student(mx.array([prompt_ids])) - base(mx.array([prompt_ids]))).max().item()
    assert 0 < changed < 100, "the adapter does something, and nothing is broken"

    (arm,) = json.loads(files.report_json.read_text())["arms"]
    assert arm["curation"]["kept"] == PROBLEMS and arm["training"]["steps"] == 2
    assert "student" in process.stdout and files.report_md.read_text().startswith("#")
    again = faults.run(*arguments, "--dry-run")
    actions = {line.rsplit(": ", 1)[1] for line in again.stdout.splitlines() if line.startswith("# ")} - {str(out)}
    assert actions == {"done"}
