"""The commands and keys that docs/scoring.md names."""

import gzip
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlx_ssd import cli, downloads
from mlx_ssd.grading import texts
from mlx_ssd.suites import evaluating, names
from tests.suites import stand_in

ROOT = Path(__file__).parents[2]
SCORING = (ROOT / "docs" / "scoring.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    mlx-ssd (.*)$", SCORING, re.MULTILINE)

MEAN = {"mean": 0.5, "low": 0.4, "high": 0.6}
FACTS = {"model": "m", "suite": "s", "comparisons": [], "max_tokens": 64}
FACTS["scores"] = [
    {"arm": "base", "decoding": "d", "problems": 1, "samples_per_problem": 1, "pass_at": {"1": MEAN}}
    | {"pass_at_by_difficulty": {}, "finish_reasons": {"stop": 3, "length": 2}}
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    stand_in.write(tmp_path)
    row = {"task_id": "HumanEval/0", "prompt": "def f(x):\n", "entry_point": "f"}
    row["test"] = "def check(f):\n    assert f(3) == 9\n"
    (tmp_path / "HumanEval.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    (tmp_path / "samples.jsonl").write_text('{"task_id": "HumanEval/0", "completion": "    return x * x"}\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(texts, "check_canaries", lambda *_: None)
    return tmp_path


def test_both_commands_are_documented():
    assert {shlex.split(command)[0] for command in COMMANDS} == {"grade", "eval"}


@pytest.mark.filterwarnings("ignore::mlx_ssd.problems.OtherProblems")  # one problem is not HumanEval's 164
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("grade")])
def test_grade(command, folder):
    arguments = shlex.split(command)
    if "humaneval" not in arguments:  # one is enough for the real sandbox
        with stand_in.in_place(stand_in.StandIn(folder / "ran.txt")):
            result = CliRunner().invoke(cli.main, arguments)
    else:
        result = CliRunner().invoke(cli.main, [*arguments, "--json"])
        assert json.loads(result.stdout)["verdicts"] == {"pass": 1}
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("eval")])
def test_eval(command, folder, monkeypatch):
    """Up to where something would be downloaded or drawn; test_evaluate.py goes on from there."""
    asked = []

    def evaluate(question, redo):
        asked.append(question)
        return FACTS

    monkeypatch.setattr(evaluating, "evaluate_suite", evaluate)
    monkeypatch.setattr(downloads, "confirm_model", lambda *_: None)
    monkeypatch.setattr(downloads, "confirm_problems", lambda *_: None)
    run = folder / "runs" / "quickstart"
    (run / "round-1" / "adapter").mkdir(parents=True)
    shutil.copy(ROOT / "recipes" / "quickstart.yaml", run / "recipe.yaml")
    (run / "manifest.json").write_text("{}")
    arguments = shlex.split(command)
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 0, result.output
    assert "--json" in command or "base: 2 of 5 answers were cut at 64 tokens" in result.stdout
    [question] = asked
    assert question.suite.name == arguments[arguments.index("--suite") + 1]
    assert question.students == arguments[1].startswith("runs/") and question.controls == ("--controls" in arguments)
    if "--samples" in arguments:
        assert question.recipe.evaluate.samples_per_problem == 5 and question.recipe.evaluate.pass_at == (1, 5)
    if "--temperature" in arguments:
        assert question.recipe.evaluate.decoding.temperature == 0.7
        assert question.directory == Path("runs/eval-Qwen3-4B-Instruct-2507-4bit")


def test_every_suite_is_listed():
    for name in names():
        assert f"`{name}`" in SCORING, name


def test_every_key_of_the_json_is_listed(folder):
    with stand_in.in_place(stand_in.StandIn(folder / "ran.txt")):
        arguments = ["grade", "answers.jsonl", "--problems", "problems.jsonl", "--json"]
        facts = json.loads(CliRunner().invoke(cli.main, arguments).stdout)
    rows = " ".join(re.findall(r"^\| (`[^|]+) \|", SCORING, re.MULTILINE))
    assert set(facts) <= set(re.findall(r"`(\w+)`", rows))
    assert all(f"`{name}`" in SCORING for name in (*facts["verdicts"], *facts["extraction"]))


def test_a_file_that_is_not_there_is_said_before_anything_is_downloaded(folder, monkeypatch):
    monkeypatch.setattr(downloads, "confirm_problems", lambda *_: pytest.fail("asked the network"))
    result = CliRunner().invoke(cli.main, ["grade", "gone.jsonl", "--suite", "humaneval"])
    assert result.exit_code == 2 and "gone.jsonl does not exist" in result.output
