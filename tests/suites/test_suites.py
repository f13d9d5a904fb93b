"""Suites by name."""

import json

import pytest

from mlx_ssd.errors import BadInput
from mlx_ssd.problems import read_problems
from mlx_ssd.sections import ProblemSource
from mlx_ssd.suites import choose, names, pass_at


def test_every_source_with_tests_has_a_name():
    assert {"embedded", "embedded-validation", "jsonl", "livecodebench-v6", "livecodebench-v5"} <= set(names())
    assert not {"rstar_coder", "livecodebench"} & set(names())
    for name in names():
        suite = choose(name, problems="mine.jsonl" if name == "jsonl" else None)
        assert suite.name == name and suite.source.source in name


def test_the_release_is_in_the_name():
    assert choose("livecodebench-v5").source.release == "v5"
    assert choose("livecodebench-v6", problems="lcb").source.path == "lcb"
    assert choose("livecodebench-v6").own_limits().wall_seconds == 6
    assert choose("mbpp").own_limits().cpu_seconds == 15
    assert choose("embedded").own_limits() is None


@pytest.mark.parametrize("name, role", [("embedded", "test"), ("embedded-validation", "validation")])
def test_embedded_problems(name, role):
    suite = choose(name, limit=3, skip=2)
    assert suite.problems() == read_problems(ProblemSource(), role)[2:5]
    assert suite.is_part() and not suite.whole().is_part()
    assert suite.identity() == choose(name).identity()
    assert suite.file_name == f"embedded-{role}"


def test_your_own_file(tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({"id": "a", "prompt": "?", "tests": [{"stdin": "", "stdout": "1"}]}) + "\n")
    suite = choose(None, problems=str(file))
    assert suite == choose("jsonl", problems=str(file))
    assert [problem.id for problem in suite.problems()] == ["a"] and suite.file_name == "mine-test"


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((None,), "--suite is missing; suites are: embedded, "),
        (("humanevil",), "--suite humanevil: there is no such suite; suites are: embedded, "),
        (("rstar_coder",), "there is no such suite"),
        (("jsonl",), "--problems FILE"),
        (("embedded", "mine.jsonl"), "--problems: the embedded problems"),
        (("embedded", None, None, 0, "impossible"), "--difficulty: "),
    ],
)
def test_what_there_is_not(arguments, words):
    with pytest.raises(BadInput) as refused:
        choose(*arguments)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"name": None, "problems": "/none.jsonl"}, "--problems: /none.jsonl does not exist"),
        ({"name": "embedded", "skip": 10_000}, "--skip: 10000 leaves none"),
        ({"name": "embedded", "difficulty": "medium"}, "--difficulty: none of the"),
    ],
)
def test_data_that_cannot_be_read_is_told_by_option(settings, words):
    with pytest.raises(BadInput) as refused:
        choose(**settings).problems()
    assert words in str(refused.value)


def test_pass_at_takes_the_k_that_samples_allow():
    assert pass_at(8) == (1, 5)
    assert pass_at(8, [2, 20]) == (1, 2, 5)
    assert pass_at(0) == (1,)
