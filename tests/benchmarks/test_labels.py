"""What the generator knows of locks and forks, and what the pages say of it."""

import argparse
import json
import random

import numpy as np
import pytest

from benchmarks import labels
from benchmarks.embedded_model.problems import COUNTS
from benchmarks.embedded_model.tasks import make_split
from benchmarks.journal import RESULTS
from mlx_ssd import models
from mlx_ssd.analysis.labels import FORK, LOCK, RULE
from mlx_ssd.errors import BadInput
from mlx_ssd.problems import read_problems
from mlx_ssd.recipe import Recipe
from mlx_ssd.sections import Model, ProblemSource

DOCS = RESULTS.parents[1] / "docs"


def test_right_tokens_are_what_solutions_that_begin_alike_go_on_with():
    root = labels.beginnings([((1, 2, 4), 60), ((1, 3, 4), 60), ((1, 3, 5, 6), 60), ((7, 8), 49)])
    assert list(labels.right_tokens(root, [1, 3, 5, 6])) == [{1, 7}, {2, 3}, {4, 5}, {6}]
    assert list(labels.right_tokens(root, [1, 2, 9, 4])) == [{1, 7}, {2, 3}, {4}, set()]  # it went wrong
    assert list(labels.right_tokens(root, [7, 9, 8])) == [{1, 7}, None, None]  # too few begin so


def test_masses_and_entropy_are_of_the_likeliest():
    wrong, entropy = labels.at_token({4, 6}, np.array([4, 5, 6, 7]), np.array([0.4, 0.3, 0.2, 0.05]))
    assert wrong == pytest.approx(0.35) and entropy == pytest.approx(-(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3)))
    assert labels.at_token(set(), np.array([1]), np.array([1.0])) == (1.0, 0.0)


def test_agreement_and_changes_by_hand():
    right = np.array([1, 1, 1, 1, 3, 2, 0, labels.NOT_KNOWN])
    label = np.array([LOCK, LOCK, LOCK, FORK, FORK, LOCK, LOCK, FORK])
    wrong = np.array([[0.1, 0.05]] * 4 + [[0.2, 0.3], [0.4, 0.1], [9, 9], [9, 9]])
    measures = {"text": np.array([0, 0, 1, 1, 0, 1, 1, 1]), "right": right, RULE.words: label}
    measures |= {"wrong": wrong, "entropy": np.array([[0.5, 0.7]] * 8)}
    measures |= {"decoded_wrong": wrong / 2, "decoded_entropy": np.zeros((8, 2))}
    assert labels.agreement(measures, RULE.words) == {
        "true locks called lock": 0.75,
        "true forks called fork": 0.5,
        "called lock, true": 0.75,
        "called fork, true": 0.5,
    }
    counted = labels.counted(measures)
    assert counted[labels.GONE] == {"lock": 1, "between": 0, "fork": 0}
    assert counted[labels.TOO_FEW] == {"lock": 0, "between": 0, "fork": 1}
    found = labels.changes(measures, np.array([0, 1]))
    assert found[labels.TRUE_LOCK]["tokens"] == 4 and found[labels.TRUE_FORK]["tokens"] == 2
    assert found[labels.TRUE_LOCK]["wrong"]["difference"]["mean"] == pytest.approx(-0.05)
    assert found[labels.TRUE_FORK]["wrong"]["base"] == pytest.approx(0.3)
    assert found[labels.TRUE_FORK]["wrong"]["difference"]["mean"] == pytest.approx(-0.1)
    assert found[labels.TRUE_FORK]["entropy"]["student"] == pytest.approx(0.7)
    assert (found[labels.AS_LOCK]["tokens"], found[labels.AS_FORK]["tokens"]) == (3, 1)


def test_problems_are_the_shipped_ones_and_their_solutions_the_models_own_tokens(monkeypatch):
    monkeypatch.setattr(labels, "SOLUTIONS", 30)
    written = make_split("test", COUNTS["test"], labels.SEED)
    shipped = read_problems(ProblemSource(), "test")
    assert [problem.id for problem in shipped] == [f"test-{n:04d}" for n in range(len(written))]
    assert [problem.prompt for problem in shipped] == [problem.prompt for problem in written]
    tokenizer = models.load_tokenizer(models.locate(Model()))
    for problem in random.Random(0).sample(written, 3):
        solutions = list(labels.solutions_of(problem, tokenizer))
        assert sum(count for _, count in solutions) == 30
        assert len({tuple(ids) for ids, _ in solutions}) == len(solutions)
        assert all(ids[-1] == tokenizer.eos_token_id for ids, _ in solutions)
        ids = solutions[0][0]
        text = tokenizer.decode(ids[:-1])
        assert text.startswith("```python\ndef solve(") and text.endswith("```")
        assert tokenizer.encode(text, add_special_tokens=False) == ids[:-1]


def test_a_finished_run(finished_run, tmp_path, monkeypatch):
    monkeypatch.setattr(labels, "SOLUTIONS", 2000)
    labels.run(argparse.Namespace(run=finished_run, out=tmp_path))
    facts = json.loads((tmp_path / "labels.json").read_text())
    counts = {truth: sum(of.values()) for truth, of in facts["labels"].items()}
    assert counts[labels.TRUE_LOCK] > counts[labels.TRUE_FORK] > 0
    assert facts["rules"][RULE.words]["called lock, true"] > 0.9
    assert (tmp_path / "labels.md").read_text() == labels.render(facts)
    for truth in (labels.TRUE_LOCK, labels.TRUE_FORK):
        assert 0 < facts["arms"]["student"][truth]["wrong"]["base"] < 0.2


def test_another_models_run_is_refused(tmp_path):
    recipe = Recipe.load("quickstart", {"model.path": "somebody/model"})
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    with pytest.raises(BadInput, match="embedded model's own problems alone"):
        labels.run(argparse.Namespace(run=tmp_path, out=tmp_path))


def test_the_pages_say_what_was_measured():
    facts = json.loads((RESULTS / "labels.json").read_text())
    assert (RESULTS / "labels.md").read_text() == labels.render(facts)
    method = (DOCS / "method.md").read_text()
    assert labels.label_table(facts) in method and labels.change_table(facts, ["student"]) in method
    share = facts["rules"][RULE.words]
    said = f"{100 * share['called fork, true']:.1f} % of what is called a fork has several"
    assert said in " ".join(method.split())
    assert f"{share['called lock, true']:.1%}" == "100.0%"
