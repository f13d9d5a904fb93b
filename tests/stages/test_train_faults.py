"""What can go wrong in training: one clear sentence each, and nothing lost. A full disk: tests/test_run.py."""

import json
import shutil

import mlx.core as mx
import pytest

from mlx_ssd import assets
from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.stages import train as stage
from tests import faults
from tests.conftest import forget


@pytest.fixture
def untrained(finished_run, tmp_path):
    """A run whose main student is still to be trained, and the adapter that it got the first time."""
    adapter = (RunFiles(finished_run).adapter / "adapters.safetensors").read_bytes()
    out = tmp_path / "run"
    shutil.copytree(finished_run, out)
    forget(RunFiles(out), "train")
    return RunFiles(out), adapter


def sentence(process):
    """The one line that a failed command says."""
    assert process.returncode in (1, 2), process.stderr
    [line] = [line for line in process.stderr.splitlines() if line.startswith("mlx-ssd: ")]
    assert "Traceback" not in process.stderr
    return line


def train(files, *settings, **options):
    chosen = [part for setting in settings for part in ("--set", setting)]
    return faults.run("train", str(files.directory), *chosen, **options)


def rows_of(files):
    return [json.loads(line) for line in files.rows.read_text().splitlines()]


def test_a_prompt_as_long_as_the_limit(untrained):
    files, _ = untrained
    limit = max(len(row["prompt_ids"]) for row in rows_of(files))
    said = sentence(train(files, f"train.max_length={limit}"))
    assert "training row (problem" in said and f"train.max_length {limit}" in said and "drop or cut" in said
    assert not files.adapter.exists() and not files.training_log.exists()


def test_what_is_too_long_is_counted_and_said(untrained):
    files, _ = untrained
    lengths = sorted(len(row["prompt_ids"]) + len(row["completion_ids"]) for row in rows_of(files))
    limit = lengths[-1] - 1
    over = sum(length > limit for length in lengths)
    process = train(files, f"train.max_length={limit}", "train.too_long=drop", "train.epochs=1")
    assert process.returncode == 0, process.stderr
    assert f"{over} training rows were longer than train.max_length {limit} and were left out" in process.stderr
    measured = json.loads(files.manifest.read_text())["stages"]["train"]["measured"]
    assert measured["rows_dropped"] == over and "rows_cut" not in measured and measured["packed"]


def test_an_empty_completion(untrained):
    """Rows are checked by their hash, so this one is another program's: the stage alone reads it."""
    files, _ = untrained
    rows = rows_of(files)
    rows[3]["completion_ids"] = []
    files.rows.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(BadInput, match=rf"{rows[3]['problem_id']}, sample 0\) has an empty prompt or completion"):
        stage.run(Recipe.load(files.recipe), files)
    assert not files.adapter.exists() and not files.training_log.exists()


@pytest.mark.parametrize("targets, words", [("tokens", "4 steps in a row"), ("distribution", "give no distribution")])
def test_a_weight_that_is_not_a_number(untrained, tmp_path, targets, words):
    files, _ = untrained
    shutil.copytree(assets.model_path(), tmp_path / "damaged")
    weights = mx.load(str(tmp_path / "damaged" / "model.safetensors"))
    weights["model.layers.1.mlp.up_proj.weight"][7, 7] = mx.nan
    mx.eval(weights)
    mx.save_safetensors(str(tmp_path / "damaged" / "model.safetensors"), weights, {"format": "mlx"})
    changes = {"model.path": str(tmp_path / "damaged"), "train.targets": targets}
    with pytest.raises(WorkFailed, match=f"{words}.* weights are damaged"):
        stage.run(Recipe.load(files.recipe, changes), files)
    assert not files.adapter.exists() and not list(files.checkpoints.glob("step-*"))


def test_a_corrupt_checkpoint(untrained):
    """The last checkpoint is torn and the adapter is not written yet: the one before is gone on from."""
    files, adapter = untrained
    assert train(files).returncode == 0
    assert (files.adapter / "adapters.safetensors").read_bytes() == adapter
    newest = sorted(files.checkpoints.iterdir())[-1]
    with open(newest / "optimizer.safetensors", "r+b") as file:
        file.truncate(1000)
    shutil.rmtree(files.adapter)
    process = train(files)
    assert process.returncode == 0, process.stderr
    assert f"{newest.name} is damaged and was passed over" in process.stderr
    assert (files.adapter / "adapters.safetensors").read_bytes() == adapter
