"""`run` begins with the plan: it says it, keeps it, and refuses what cannot be done before anything is fetched."""

import json
import os

import pytest
from click.testing import CliRunner

from mlx_ssd import machine, models, pipeline
from mlx_ssd.budget import KNOWN_CONFIGS
from mlx_ssd.cli import main
from mlx_ssd.recipe import Recipe

QWEN = KNOWN_CONFIGS["mlx-community/Qwen3-4B-Instruct-2507-4bit"]
SMALL = {"system": "macOS", "chip": "Apple M2", "cores": 8, "memory_bytes": 8 * 2**30}


def invoke(*arguments):
    return CliRunner().invoke(main, ["run", *arguments])


def test_the_impossible_is_refused_before_anything_is_asked_for_or_written(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "describe", lambda: SMALL)
    monkeypatch.setattr(models, "download_bytes", None)
    result = invoke("mac-4b-instruct", "--out", str(tmp_path / "run"))
    assert result.exit_code == 2
    (said,) = result.stderr.strip().splitlines()
    assert "5.15 GB may be used" in said and "it fits with --set sample.max_tokens=2048" in said
    assert os.listdir(tmp_path) == []


def test_two_lines_before_the_work(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "describe", lambda: SMALL)
    monkeypatch.setattr(pipeline, "run", lambda *_, planned, **__: seen.append(planned) or 1 / 0)
    seen = []
    result = invoke("quickstart", "--out", str(tmp_path / "run"))
    assert isinstance(result.exception, ZeroDivisionError)
    lines = [line for line in result.stderr.splitlines() if line.startswith("plan: ")]
    assert len(lines) == 2 and "GB at the highest" in lines[0] and "most of it" in lines[1]
    assert seen[0]["stages"]["train"]["peak_bytes"] > 0 and seen[0]["machine"] == SMALL


def test_of_a_model_that_nobody_knows_config_json_is_fetched_first_and_alone(monkeypatch, tmp_path):
    config = KNOWN_CONFIGS["mlx-community/Qwen3-30B-A3B-4bit"]
    monkeypatch.setattr(machine, "describe", lambda: SMALL)
    monkeypatch.setattr(models, "cached_config", lambda model: None)
    monkeypatch.setattr(models, "download_bytes", lambda name, revision: 17 * 10**9)
    monkeypatch.setattr(models, "read_config", lambda model: config)
    monkeypatch.setattr(models, "locate", None)
    asked = ("quickstart", "--model", "some/mixture", "--out", str(tmp_path / "run"))
    assert "confirm it with --yes" in invoke(*asked).stderr
    result = invoke(*asked, "--yes")
    assert result.exit_code == 2 and "17.2 GB are weights): a Mac with 32 GB or more" in result.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "mamba"},
        QWEN | {"intermediate_size": [9728] * 36},
        QWEN | {"num_attention_heads": 0},
        QWEN | {"quantization": {"bits": 4}},
        ["nothing"],
    ],
    ids=["missing", "list", "zero", "quantization", "no object"],
)
class TestUnusualModel:
    @pytest.fixture(autouse=True)
    def folder(self, config, tmp_path):
        (tmp_path / "config.json").write_text(json.dumps(config))

    def test_it_is_run_without_a_plan(self, monkeypatch, tmp_path):
        monkeypatch.setattr(pipeline, "run", lambda *_, planned, **__: seen.append(planned) or 1 / 0)
        seen = []
        invoke("quickstart", "--model", str(tmp_path), "--out", str(tmp_path / "run"))
        assert seen == [None]

    @pytest.mark.parametrize("command", ["plan", "plan --hours 1 --write sized.yaml", "run --hours 1 --out run"])
    @pytest.mark.parametrize("chip", ["Apple M2", "AMD EPYC"])
    def test_one_sentence_says_what_can_be_done(self, command, chip, monkeypatch, tmp_path):
        monkeypatch.setattr(machine, "describe", lambda: SMALL | {"chip": chip})
        monkeypatch.chdir(tmp_path)
        verb, *options = command.split()
        result = CliRunner().invoke(main, [verb, "quickstart", "--model", str(tmp_path), *options])
        (said,) = result.stderr.strip().splitlines()
        assert result.exit_code == 2 and "config.json" in said
        assert "so that its size cannot be computed; `mlx-ssd run` without --hours takes it without a plan" in said
        assert os.listdir(tmp_path) == ["config.json"]


def test_the_first_plan_stays(monkeypatch, tmp_path):
    """A resumed run keeps what was predicted before it; --redo begins anew."""
    monkeypatch.setattr(pipeline, "_run_unit", lambda *_: 1 / 0)
    for said, redo, kept in (("first", False, "first"), ("second", False, "first"), ("third", True, "third")):
        with pytest.raises(ZeroDivisionError):
            pipeline.run(Recipe.load("quickstart"), tmp_path / "run", planned={"v": 1, "said": said}, redo=redo)
        assert json.loads((tmp_path / "run" / "plan.json").read_text())["said"] == kept
