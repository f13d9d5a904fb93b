"""The command line: quick to start, and each sub-command there."""

import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from mlx_ssd import recipe
from mlx_ssd.cli import main
from tests import faults


def invoke(*arguments):
    return CliRunner().invoke(main, arguments)


def test_help_names_every_command():
    output = invoke("--help").output
    for name in ("run", "sample", "curate", "train", "evaluate", "report", "recipes", "try"):
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


def test_try_shows_base_and_student(finished_run):
    prompt = (
        "Given a list of integers xs. Keep those that are even, then square each, and return the sum.\n\ndef solve(xs):"
    )
    first = faults.run("try", str(finished_run), prompt)
    assert first.returncode == 0, first.stderr
    assert "base" in first.stdout and "student" in first.stdout and first.stdout.count("def solve(xs):") == 2
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
