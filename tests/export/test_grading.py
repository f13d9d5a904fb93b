"""An artefact answers as the student does, or it is told: paired pass@1, and what is refused because of it."""

import json
import re

import pytest

from mlx_ssd import models, pipeline
from mlx_ssd.errors import BadInput
from mlx_ssd.export import exporting, grading
from mlx_ssd.export.reference import MlxReader
from mlx_ssd.export.source import source_of
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Generation
from mlx_ssd.sections import ProblemSource
from mlx_ssd.storage import Journal, read_json
from tests import faults

PROBLEMS, SAMPLES = 8, 2


@pytest.fixture
def run(run_dir):
    """A run whose student is near its base, with few problems, and not evaluated."""
    directory = run_dir(update=0.02)
    few = {"problems.test.limit": PROBLEMS, "evaluate.samples_per_problem": SAMPLES, "evaluate.pass_at": [1, 2]}
    recipe = Recipe.load(directory / "recipe.yaml", few | {"evaluate.max_tokens": 96})
    (directory / "recipe.yaml").write_text(recipe.to_yaml())
    return directory


class Other:
    """A target of which only the reader matters."""

    def __init__(self, reader):
        self.load = lambda *_: reader


def graded(run, reader, folder_name="other"):
    folder = run / folder_name
    folder.mkdir(exist_ok=True)
    return grading.grade_export(source_of(run), Other(reader), folder_name, folder, "float32")


def student(run):
    source = source_of(run)
    return models.load(source.base, "auto", source.adapter)[0]


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (-0.02, 0.02, "same"),
        (0.0, 0.0, "same"),
        (-0.021, 0.01, "open"),
        (-0.3, 0.3, "open"),
        (-0.054, -0.012, "worse"),
        (-0.03, -0.001, "open"),  # below zero, but by less than two points
        (0.021, 0.05, "better"),
        (0.0, 0.05, "open"),
    ],
)
def test_the_interval_says_which(low, high, expected):
    assert grading.verdict((low + high) / 2, low, high) == expected


def test_the_adapter_answers_as_the_student_and_a_broken_model_is_told(run):
    facts = graded(run, MlxReader(student(run)))
    assert (facts["problems"], facts["samples_per_problem"], facts["suite"]) == (PROBLEMS, SAMPLES, "embedded-test")
    assert facts["identical_completions"] == 1 and facts["difference"] == {"mean": 0, "low": 0, "high": 0}
    assert facts["pass_at_1"]["student"] == facts["pass_at_1"]["artefact"] > 0.2
    assert facts["verdict"] == "same" and grading.failure(facts) is None
    journals = (run / "export" / ".graded").glob("*/*.generations.jsonl")
    drawn = {path.parent.name.split("-")[0]: path for path in journals}
    assert set(drawn) == {"adapter", "other"}
    both = [sorted(Journal(path, Generation).read(), key=lambda g: g.key) for path in drawn.values()]
    for a, b in zip(*both, strict=True):
        assert a.model != b.model and a.model_copy(update={"model": b.model}) == b
        assert (a.stream, a.policy) == ("eval", "t0.9-k20-p0.8")
    assert len(both[0]) == PROBLEMS * SAMPLES

    broken = student(run)
    broken.model.norm.weight = -broken.model.norm.weight
    facts = graded(run, MlxReader(broken), "broken")
    assert facts["pass_at_1"]["artefact"] == 0 and facts["identical_completions"] < 0.1
    assert facts["difference"]["mean"] == pytest.approx(-facts["pass_at_1"]["student"])
    assert facts["minimum_detectable_effect"] > 0
    assert facts["verdict"] == "worse"
    reason = r"fewer problems than the student: pass@1 0\.0 % beside \d+\.\d %, -\d+\.\d .* 2 points may be lost"
    assert re.search(reason, grading.failure(facts))


def test_transformers_answers_as_mlx_does(run):
    pytest.importorskip("torch")
    from mlx_ssd.export import torch_reader

    facts = graded(run, torch_reader.student(source_of(run)))
    assert facts["identical_completions"] >= 0.9
    assert abs(facts["difference"]["mean"]) <= 0.1


def test_what_nothing_draws_from_is_not_graded(run):
    class LogitsAlone:
        pass

    assert graded(run, LogitsAlone()) is None
    assert not (run / "export" / ".graded").exists()


def test_the_runs_own_evaluation_serves_where_it_is_whole(run, monkeypatch):
    reader = MlxReader(student(run))
    expected = graded(run, reader)
    (own,) = (run / "export" / ".graded").glob("adapter-on-*")
    place = run / "eval" / "student"
    for path in place.glob("*"):
        path.unlink()
    for path in own.glob("*"):
        path.rename(place / path.name)
    own.rmdir()
    done = [pipeline.Plan("evaluate", "done")]
    monkeypatch.setattr(grading.pipeline, "plan", lambda recipe, out: (None, done))
    assert graded(run, reader) == expected
    assert not own.exists()
    done[0] = pipeline.Plan("evaluate", "changed")
    assert graded(run, reader) == expected and own.exists()


def test_problems_without_tests_give_way_to_the_embedded_ones(tmp_path):
    own = tmp_path / "own.jsonl"
    own.write_text('{"id": "a", "prompt": "Sort a list."}\n{"id": "b", "prompt": "Reverse it."}\n')
    recipe = Recipe.load("quickstart", {"problems.test": {"source": "jsonl", "path": str(own)}})
    source, problems = grading._suite(recipe)
    assert source == ProblemSource() and len(problems) > 100
    small = Recipe.load("quickstart", {"problems.test.limit": 3})
    assert [len(grading._suite(small)[1]), grading._suite(small)[0]] == [3, small.problems.test]


@pytest.mark.slow
def test_the_command_line_writes_it_down_and_checks_it_again(run):
    first = faults.run("export", str(run), "--target", "adapter", "--grade")
    assert first.returncode == 0, first.stderr
    assert "same: pass@1 " in first.stdout and "100.0 % of the answers the same" in first.stdout
    verified = run / "export" / "adapter" / "verify.json"
    facts = read_json(verified)
    assert facts["verdict"] == "pass" and facts["graded"]["verdict"] == "same"
    drawn = {path: path.stat().st_mtime_ns for path in (run / "export" / ".graded").glob("*/*.generations.jsonl")}
    assert len(drawn) == 2
    graded_before = facts.pop("graded")
    verified.write_text(json.dumps(facts))
    again = faults.run("export", str(run), "--target", "adapter", "--check", "--grade")
    assert again.returncode == 0, again.stderr
    assert read_json(verified) == facts | {"graded": graded_before}
    assert {path: path.stat().st_mtime_ns for path in drawn} == drawn, "nothing was drawn again"


def test_a_sandbox_that_is_too_weak_is_refused_before_anything_is_written(run, monkeypatch):
    def refuse(level):
        raise BadInput("the sandbox is too weak")

    monkeypatch.setattr(exporting, "check_level", refuse)
    with pytest.raises(BadInput, match="too weak"):
        exporting.export_run(run, [("adapter", None)], "student", grade=True)
    assert not (run / "export" / "adapter").exists()
