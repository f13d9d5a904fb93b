"""The command line: quick to start, and each sub-command there."""

import subprocess
import sys
import time

import pytest
import yaml
from click.testing import CliRunner

from mlx_ssd import recipe
from mlx_ssd.cli import main
from mlx_ssd.recipe import Recipe
from tests import faults


def invoke(*arguments):
    return CliRunner().invoke(main, arguments)


def test_help_names_every_command():
    output = invoke("--help").output
    for name in ("run", "sample", "curate", "train", "evaluate", "report", "recipes", "try", "eval", "grade"):
        assert f"\n  {name} " in output


def test_help_takes_less_than_a_fifth_of_a_second():
    seconds = []
    for _ in range(5):
        start = time.monotonic()
        subprocess.run([*faults.COMMAND, "--help"], check=True, capture_output=True)
        seconds.append(time.monotonic() - start)
    assert min(seconds) < 0.2  # the least disturbed of five: other work on the machine is not ours


def test_recipes_are_listed_and_shown():
    listing = invoke("recipes").output
    for name in recipe.names():
        assert name in listing
    assert invoke("recipes", "show", "quickstart").output == recipe.find("quickstart").read_text()
    assert invoke("recipes", "show", "quickstrat").exit_code == 2


@pytest.mark.parametrize("name", recipe.names())
def test_recipe_opens_with_purpose_hardware_and_expectation(name):
    text = recipe.find(name).read_text()
    head = text[: text.index("\nname:")]
    assert all(line.startswith("#") for line in head.splitlines())
    for word in ("Purpose", "Hardware", "Expect"):
        assert word in head


@pytest.mark.parametrize("name", recipe.names())
def test_every_recipe_dry_runs(name, tmp_path):
    result = invoke("run", name, "--dry-run", "--out", str(tmp_path / "none"))
    assert result.exit_code == 0, result.output
    assert f"name: {name}" in result.output


def test_wrong_flag_is_exit_2():
    assert invoke("run", "--nonsense").exit_code == 2


def test_try_shows_base_and_students(finished_run):
    prompt = (
        "Given a list of integers xs. Keep those that are even, then square each, and return the sum.\n\ndef solve(xs):"
    )
    first = faults.run("try", str(finished_run), prompt)
    assert first.returncode == 0, first.stderr
    assert "base" in first.stdout and "student" in first.stdout and first.stdout.count("def solve(xs):") == 3
    assert faults.run("try", str(finished_run), prompt).stdout == first.stdout


def test_try_without_an_adapter(tmp_path):
    result = faults.run("try", str(tmp_path), "x")
    assert result.returncode == 2 and "no trained adapter" in result.stderr


def test_module_needs_no_installation_path():
    code = "import mlx_ssd; print(mlx_ssd.Recipe.load('quickstart').name)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "quickstart\n"
    )


class TestHours:
    MAC = {"system": "Darwin 25", "chip": "Apple M3 Max", "cores": 16, "memory_bytes": 64 * 2**30}

    def test_sizes_the_recipe_for_the_machine(self, monkeypatch):
        from mlx_ssd import budget, machine, models

        config = budget.KNOWN_CONFIGS["mlx-community/Qwen3-4B-Instruct-2507-4bit"]
        monkeypatch.setattr(machine, "describe", lambda: self.MAC)
        monkeypatch.setattr(models, "read_config", None)  # a known model is not looked up
        result = invoke("run", "mac-4b-instruct", "--hours", "8", "--dry-run")
        assert result.exit_code == 0, result.output
        sizing = budget.prompts_for(8, Recipe.load("mac-4b-instruct"), self.MAC, config)
        resolved = yaml.safe_load(result.stdout)
        assert resolved["problems"]["train"]["limit"] == sizing.problems > 0
        assert (resolved["sample"]["rows"], resolved["evaluate"]["rows"]) == (sizing.sample_rows, sizing.evaluate_rows)
        assert "not yet measured on a Mac" in result.stderr

    def test_a_machine_without_a_known_speed_is_told_what_to_set(self, monkeypatch):
        from mlx_ssd import machine, planning
        from mlx_ssd.errors import WorkFailed

        def fail(*_):
            raise WorkFailed("the calibration failed: no array library")

        monkeypatch.setattr(machine, "describe", lambda: self.MAC | {"chip": "Intel Xeon"})
        monkeypatch.setattr(planning, "calibrate", fail)
        result = invoke("run", "--hours", "8", "--dry-run")
        assert result.exit_code == 2
        assert "cannot size a run on Intel Xeon" in result.stderr and "problems.train.limit" in result.stderr


class TestDownloads:
    def test_nothing_is_downloaded_unasked(self, monkeypatch, tmp_path):
        from mlx_ssd import models

        monkeypatch.setattr(models, "download_bytes", lambda name, revision: 2_263_022_417)
        result = invoke("run", "mac-4b-instruct", "--out", str(tmp_path / "r"))
        assert result.exit_code == 2
        assert "2.3 GB to download from the hub, once; confirm it with --yes" in result.stderr
        assert not (tmp_path / "r").exists()

    @pytest.mark.parametrize("command", [["sample"], ["probe"]])
    def test_other_commands_ask_too(self, command, monkeypatch, tmp_path):
        from mlx_ssd import models

        monkeypatch.setattr(models, "download_bytes", lambda name, revision: 10**9)
        arguments = {"sample": [str(tmp_path / "r"), "--model", "some/model"], "probe": ["some/model"]}[command[0]]
        result = invoke(*command, *arguments)
        assert result.exit_code == 2 and "some/model: 1.0 GB to download" in result.stderr

    def test_another_model_has_not_the_pinned_revision(self):
        resolved = yaml.safe_load(invoke("run", "mac-4b-instruct", "--model", "some/other", "--dry-run").stdout)
        assert resolved["model"] == {"path": "some/other", "revision": None, "dtype": "auto"}
