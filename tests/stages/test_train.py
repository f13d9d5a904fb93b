"""What the train stage leaves behind is what mlx-lm loads, on full-precision and quantized bases."""

import json

import mlx.core as mx
import mlx_lm
import pytest
from mlx.utils import tree_flatten

from mlx_ssd import assets, pipeline
from mlx_ssd.errors import BadInput
from mlx_ssd.layout import RunFiles
from mlx_ssd.prompts import render
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import TrainingRow
from mlx_ssd.sections import Prompt
from mlx_ssd.stages import score, train
from mlx_ssd.storage import write_records
from tests import faults
from tests.conftest import SMALL

PROMPT = (
    "Given a list of integers xs. Keep those that are even, then square each, and return the sum.\n\ndef solve(xs):"
)


def test_mlx_lm_loads_the_runs_adapter_and_generates(finished_run):
    adapter = RunFiles(finished_run).adapter
    model, tokenizer = mlx_lm.load(str(assets.model_path()), adapter_path=str(adapter))
    prompt = render(tokenizer, PROMPT, Prompt())
    text = mlx_lm.generate(model, tokenizer, prompt, max_tokens=96)
    assert text.startswith("```python\ndef solve(xs):\n    ") and text.rstrip().endswith("```")
    base, _ = mlx_lm.load(str(assets.model_path()))
    changed = mx.abs(model(mx.array([prompt])) - base(mx.array([prompt]))).max().item()
    assert changed > 1e-2, "the adapter does something"
    trained = [name for name, _ in tree_flatten(model.parameters()) if name.endswith("lora_b")]
    assert len(trained) == 4 * 7, "seven linear layers in each of four blocks"


def row(problem, prompt, completion):
    return TrainingRow(
        problem_id=problem, sample_index=0, prompt_ids=[7] * prompt, completion_ids=list(range(9, 9 + completion))
    )


@pytest.fixture
def files(tmp_path):
    """Ten rows of 20 tokens, one of 60 and one whose prompt has 60."""
    files = RunFiles(tmp_path)
    files.rows.parent.mkdir(parents=True)
    write_records(files.rows, [*(row(f"p{i}", 8, 12) for i in range(10)), row("long", 10, 50), row("prompt", 60, 1)])
    return files


SETTINGS = {"max_length": 40, "too_long": "cut", "rows_per_step": 4, "rank": 2, "learning_rate": 0.01, "epochs": 2}


def trained(files, **settings):
    return train.run(Recipe.parse("", "r", {"train": SETTINGS | settings}), files)


def test_what_was_measured_and_said(files, capsys):
    found = trained(files, validation={"percent": 20, "every_steps": 2})
    assert (found["rows_cut"], found["rows_dropped"], found["packed"]) == (1, 1, True)
    log = [json.loads(line) for line in files.training_log.read_text().splitlines()]
    assert found["steps"] == len(log) - 1 == 6
    losses = {entry["step"]: entry["validation"]["loss"] for entry in log if "validation" in entry}
    assert list(losses) == [0, 2, 4, 6]
    assert found["validation_loss"] == losses[found["best_step"]] == min(losses.values()) < losses[0]
    # 10 rows of 19 and one of 39 inputs, four rows a step.
    assert (found["row_tokens"], found["gradient_checkpointing"]) == (-(-229 * 4 // 11), False)
    assert found["predicted_peak_bytes"] > assets.model_path().joinpath("model.safetensors").stat().st_size
    assert "skipped_steps" not in found
    said = capsys.readouterr().err
    assert "note: 1 training rows were longer than train.max_length 40 and were cut" in said
    assert "note: 1 training rows were longer than train.max_length 40 and were left out" in said


def test_patience_and_a_best_step_that_is_not_the_last_are_said(files, capsys):
    found = trained(files, validation={"percent": 20, "every_steps": 1, "patience": 1}, learning_rate=5.0, epochs=9)
    assert found["best_step"] == found["steps"] - 1 < 26
    said = capsys.readouterr().err
    assert f"note: training ended at step {found['steps']}: 1 validations without a better loss" in said
    assert "the student is " in said


def test_the_work_of_a_step_may_be_cut_and_saved_otherwise_on_resuming_and_nothing_else(files):
    whole = trained(files)
    again = trained(files, row_tokens=20, gradient_checkpointing=True, memory_gb=1.0, checkpoint_every_steps=1)
    assert (again["resumed_from"], again["row_tokens"], again["gradient_checkpointing"]) == (whole["steps"], 20, True)
    with pytest.raises(BadInput, match=r"another training \(train\.rank is 2 there and 3 here\)"):
        trained(files, rank=3)


def test_what_an_earlier_version_counted_and_this_one_does_not_tells_no_trainings_apart():
    now = {"version": train.VERSION, "settings": train.settings(Recipe.parse("", "r", {})), "inputs": {}}
    settings = now["settings"]
    then = now | {"settings": settings | {"train": settings["train"] | {"checkpoint_every_steps": 25}}}
    assert then != now and pipeline._counted(train, then) == now
    other = now | {"settings": settings | {"train": settings["train"] | {"rank": 3}}}
    assert pipeline._counted(train, other) == other
    assert pipeline._counted(score, {"settings": {}}) == {"settings": {}}


def test_a_checkpoint_of_an_earlier_version_is_gone_on_from(files):
    whole = trained(files)
    state = max(files.round.glob("checkpoints/*/state.json"))
    said = json.loads(state.read_text())
    said["identity"]["train"]["checkpoint_every_steps"] = 25
    state.write_text(json.dumps(said))
    assert trained(files)["resumed_from"] == whole["steps"]
    said["identity"]["inputs"]["rows"] = "others"
    state.write_text(json.dumps(said))
    with pytest.raises(BadInput, match=r"another training \(inputs\.rows is others there"):
        trained(files)


def test_memory_that_is_too_little_is_refused(files):
    with pytest.raises(BadInput, match=r"a row of \d+ tokens takes 0\.0\d+ GB \(computed\), and 0\.004 GB may be used"):
        trained(files, memory_gb=0.004)
    assert not files.training_log.exists()


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_base_goes_from_samples_to_adapter(bits, tmp_path):
    model = tmp_path / "quantized"
    mlx_lm.convert(str(assets.model_path()), str(model), quantize=True, q_bits=bits, q_group_size=32)
    out = tmp_path / "run"
    few = ("--model", str(model), "--set", "problems.train.limit=8", "--set", "train.epochs=1")
    for stage in ("sample", "curate", "train"):
        process = faults.run(stage, str(out), *SMALL, *few)
        assert process.returncode == 0, process.stderr
    files = RunFiles(out)
    losses = [json.loads(line)["loss"] for line in files.training_log.read_text().splitlines()]
    assert losses and all(0 < loss < 5 for loss in losses)
    loaded, tokenizer = mlx_lm.load(str(model), adapter_path=str(files.adapter))
    assert mx.isfinite(loaded(mx.array([render(tokenizer, PROMPT, Prompt())]))).all().item()
