"""The stage, the command, and a user's own texts, on a small finished run."""

import json
import shutil

import pytest

from mlx_ssd import stages
from mlx_ssd.analysis import store
from mlx_ssd.errors import BadInput
from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Grade
from mlx_ssd.storage import Journal
from tests import faults

RESIDUAL = 1e-5


def test_recipes_say_which_texts():
    with pytest.raises(BadInput, match=r"analyze.texts is 'other'; give one of base, student, tokens"):
        Recipe.load("quickstart", {"analyze.texts": "other"})
    with pytest.raises(BadInput, match=r"analyze.samples_per_problem 9 is more than the 8"):
        Recipe.load("quickstart", {"analyze.samples_per_problem": 9})
    assert Recipe.load("quickstart", {"analyze.texts": "tokens"}).analyze.texts == "tokens"


def test_null_leaves_it_out(tmp_path):
    for settings, there in (({}, True), ({"analyze": None}, False)):
        units = stages.units(Recipe.load("quickstart", settings), tmp_path)
        assert ("analyze" in [unit.name for unit in units]) == there


@pytest.fixture(scope="module")
def run(finished_run):
    return RunFiles(finished_run)


def test_a_run_ends_analysed(run):
    texts = store.texts(run.analysis)
    assert [text.problem_id for text in texts] == sorted({text.problem_id for text in texts}) and len(texts) == 24
    assert store.arms(run.analysis) == ["student", "tokens"]
    grades = RunFiles(run.directory, "base").grades("embedded-test", "t0.9-k20-p0.8")
    verdicts = {grade.key: grade.verdict for grade in Journal(grades, Grade).read()}
    assert all(text.verdict == verdicts[text.problem_id, 0] for text in texts)
    for arm in ("student", "tokens"):
        found = store.summary(run.analysis, arm)
        assert max(found["residuals"].values()) <= RESIDUAL
        tokens = sum(len(text.completion_ids) for text in texts)
        assert found["texts"]["tokens"] == tokens == sum(part.tokens for part in store.parts(run.analysis, arm))
        assert found["texts"]["source"] == "the base's answers to the test problems, decoded at t0.9-k20-p0.8"
        assert sum(found["labels"][label]["tokens"] for label in store.LABELS) == tokens
        assert len(found["finding"]) == 4


def assert_close(found, wanted):
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for name in wanted:
            assert_close(found[name], wanted[name])
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_close(one, other)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    else:
        assert found == wanted


def test_the_command_prints_what_is_there_and_goes_on(run, tmp_path):
    run = RunFiles(shutil.copytree(run.directory, tmp_path / "copy"))
    out = str(run.directory)
    process = faults.run("analyze", out)
    assert process.returncode == 0, process.stderr
    assert "student, before -> after" in process.stdout and "tokens, before -> after" in process.stdout
    assert "analyze" not in process.stderr  # nothing was computed again
    before = store.summary(run.analysis, "tokens")
    store.part_files(run.analysis, "tokens")[0].unlink()
    process = faults.run("analyze", out, "--arm", "tokens", "--json")
    assert process.returncode == 0, process.stderr
    assert "analyze tokens" in process.stderr and "analyze student" not in process.stderr
    assert_close(json.loads(process.stdout), before)  # another process: its kernels may round otherwise


def test_own_texts(run, tmp_path):
    file = tmp_path / "mine.jsonl"
    lines = [{"prompt": "Add up xs.", "completion": "return sum(xs)"}, {"text": "def solve(n):\n    return n"}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ("analyze", str(run.directory), "--texts", str(file), "--out", str(tmp_path / "mine"))
    process = faults.run(*arguments)
    assert process.returncode == 0, process.stderr
    found = store.summary(tmp_path / "mine", "student")
    assert found["texts"]["source"] == "the texts of mine.jsonl" and found["texts"]["texts"] == 2
    file.write_text("nonsense\n")
    process = faults.run(*arguments)
    assert process.returncode == 2 and process.stderr.count("\n") == 1 and "line 1: write it as" in process.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "needs a run directory"),
        (("/nowhere",), "not a run directory"),
        (("RUN", "--arm", "other"), "--arm other: RUN has student, tokens"),
        (("RUN", "--texts", "mine.jsonl"), "go together"),
        (("RUN", "--texts", "/nowhere", "--out", "OUT"), "is not a file"),
        (("RUN", "--texts", "RUN/recipe.yaml", "--out", "RUN"), "holds something else"),
    ],
)
def test_what_is_wrong_is_one_sentence(run, tmp_path, arguments, said):
    names = {"RUN": str(run.directory), "OUT": str(tmp_path / "out")}

    def filled(text):
        for name, value in names.items():
            text = text.replace(name, value)
        return text

    process = faults.within("analyze", *map(filled, arguments))
    assert process.returncode == 2 and process.stderr.count("\n") == 1
    assert filled(said) in process.stderr
