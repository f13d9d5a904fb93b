"""The probe: what it asks, what it refuses, what follows from the grades, and the command itself."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mlx_ssd import assets, pipeline
from mlx_ssd.cli import main
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.errors import BadInput
from mlx_ssd.probing import probe, words
from mlx_ssd.probing.probe import answer
from mlx_ssd.probing.question import PROBLEMS, SAMPLES, Question, recipe_of
from mlx_ssd.recipe import Recipe
from tests import faults

from .made_up import MILD, PAPER, fill, like, question

# What is asked


def test_temperatures_of_the_two_stages_multiply_to_the_same_grid(tmp_path):
    asked = question(tmp_path)
    of_paper = [entry.policy.stages[-1].temperature for entry in asked.after(PAPER)]
    assert of_paper == [0.6, 0.75, 0.9, 1.05, 1.2]
    of_mild = [entry.policy.stages[-1].temperature for entry in asked.after(MILD)]
    np.testing.assert_allclose(np.array(of_mild) * 1.3, np.array(of_paper) * 1.6, atol=0.01)
    assert {entry.policy.stages[-1].top_p for entry in asked.after(PAPER)} == {0.8}
    assert len({entry.generations for entry in asked.entries()}) == len(asked.entries()) == len(asked.base()) + 15


def test_the_recipes_own_decodings_are_among_what_is_tried(tmp_path):
    overrides = {"sample.decoding": {"temperature": 1.1, "top_k": 9}, "evaluate.decoding": {"temperature": 0.33}}
    asked = question(tmp_path, policies=(), overrides=overrides)
    assert asked.policies[0] == DecodingPolicy(1.1, 9, 0.8) and PAPER in asked.policies
    assert asked.base()[0].policy == asked.own == DecodingPolicy(0.33, 20, 0.8)
    ordinary = question(tmp_path, policies=())
    assert len(set(ordinary.policies)) == len(ordinary.policies) and ordinary.policies[0] == PAPER


def test_a_policy_that_leaves_the_base_as_it_is_is_not_tried(tmp_path):
    unchanged = {"sample.decoding": {"temperature": 1.0, "top_k": 0, "top_p": 1.0}}
    assert all(policy.temperature > 1 for policy in question(tmp_path, policies=(), overrides=unchanged).policies)


def test_a_recipe_or_a_model_may_be_named(tmp_path):
    assert recipe_of("quickstart") == Recipe.load("quickstart") == recipe_of("embedded")
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nseed: 5\n")
    assert recipe_of(file).name == "mine" and recipe_of(file, {"seed": 6}).seed == 6
    folder = tmp_path / "my model"
    shutil.copytree(assets.model_path(), folder)
    of_folder = recipe_of(folder)
    assert of_folder.model.path == str(folder) and of_folder.name == "quickstart-my-model"
    assert recipe_of("owner/name").model.path == "owner/name"
    with pytest.raises(BadInput, match="did you mean quickstart"):
        recipe_of("quickstrat")
    with pytest.raises(BadInput, match="my-model/ is no folder"):
        recipe_of("my-model/")
    with pytest.raises(BadInput, match="no recipe or recipe file 'a/gone.yaml'"):
        recipe_of("a/gone.yaml")


# What is refused


def jsonl(path, ids, tests=True):
    of_tests = {"entry_point": "f", "tests": [{"args": [1], "expected": 1}]} if tests else {}
    path.write_text("".join(json.dumps({"v": 1, "id": i, "prompt": f"Do {i}.", **of_tests}) + "\n" for i in ids))
    return {"source": "jsonl", "path": str(path)}


def test_test_problems_are_never_looked_at(tmp_path):
    test = jsonl(tmp_path / "test.jsonl", "abcdefghij")
    with pytest.raises(BadInput, match="does not look at test problems"):
        question(tmp_path, overrides={"problems.test": test, "problems.validation": None, "evaluate.curve": None})
    with pytest.raises(BadInput, match="'a' is a test problem too"):
        question(tmp_path, overrides={"problems.test": test, "problems.validation": test})


def test_without_validation_problems_the_embedded_ones_serve_the_embedded_test(tmp_path):
    asked = question(tmp_path, overrides={"problems.validation": None, "evaluate.curve": None})
    assert [p.id for p in asked.problems()][0].startswith("validation-") and len(asked.problems()) == 40


@pytest.mark.parametrize(
    "ids, tests, complaint", [("abcdefghij", False, "have no tests"), ("abc", True, "3 problems give no interval")]
)
def test_problems_that_tell_nothing_are_refused(ids, tests, complaint, tmp_path):
    source = jsonl(tmp_path / "mine.jsonl", ids, tests)
    with pytest.raises(BadInput, match=complaint):
        question(tmp_path, overrides={"problems.validation": source})


def test_rstar_coder_has_no_tests(tmp_path):
    with pytest.raises(BadInput, match="rstar_coder has no tests"):
        question(tmp_path, overrides={"problems.validation": {"source": "rstar_coder"}})


def test_a_limit_bounds_a_users_file_but_not_the_embedded_set(tmp_path):
    source = jsonl(tmp_path / "mine.jsonl", "abcdefghijklmnopqrstuvwxyz")
    mine = question(tmp_path, overrides={"problems.validation": source | {"limit": 12}})
    assert len(mine.problems()) == 12  # what lies beyond may be the test problems
    assert len(question(tmp_path, overrides={"problems.validation.limit": 12}).problems()) == 40


def test_a_folder_holds_one_question(tmp_path):
    first = question(tmp_path)
    first.save()
    assert Question.load(tmp_path) == first
    question(tmp_path, problems=50, samples=6, policies=(PAPER,)).save()  # the same, asked more thoroughly
    with pytest.raises(BadInput, match="a probe with another evaluate.max_tokens"):
        question(tmp_path, overrides={"evaluate.max_tokens": 7}).save()
    with pytest.raises(BadInput, match="a probe with another evaluate.stop_loops"):
        question(tmp_path, overrides={"evaluate.stop_loops": {}}).save()
    with pytest.raises(BadInput, match="a probe with another problems.validation"):
        question(tmp_path, overrides={"problems.validation.skip": 7}).save()


def test_one_sample_is_refused(tmp_path):
    with pytest.raises(BadInput, match="at least 2"):
        probe("quickstart", tmp_path, samples=1)


# What follows


def test_facts_from_grades(tmp_path):
    asked = question(tmp_path, problems=100)
    fill(asked, like(1.2, 0.8, {PAPER: (0.9, 0.7), MILD: (1.29, 0.9)}))
    facts = answer(asked)
    assert facts["second_round"]["over_one"]["high"] < 0 and facts["second_round"]["then"]["temperature"] == 1
    assert [policy["train"]["temperature"] for policy in facts["policies"]] == [1.3, 1.6], "most room first"
    mild, paper = facts["policies"]
    assert (mild["best"]["temperature"], paper["best"]["temperature"]) == (1.29, 0.9)
    assert facts["base"]["best"]["temperature"] == 1.2 and facts["base"]["own"]["temperature"] == 0.9
    assert facts["test"] == {"problems": 200, "samples_per_problem": 8}
    assert mild["room"]["low"] < 0.3 < mild["room"]["high"] and paper["room"]["low"] < 0.1 < paper["room"]["high"]
    assert mild["measured"]["low"] < mild["room"]["low"]
    entry = next(e for e in asked.after(MILD) if e.policy.stages[-1].temperature == 1.29)
    grades = [json.loads(line)["verdict"] for line in entry.grades.read_text().splitlines()]
    assert mild["best"]["pass_at"]["1"] == pytest.approx(grades.count("pass") / len(grades))
    right = np.array([v == "pass" for v in grades]).reshape(100, 5)
    assert mild["best"]["pass_at"]["5"] == pytest.approx(right.any(axis=1).mean())
    assert facts["verdict"][0].startswith("Room found, train")


def test_pass_at_5_is_absent_with_fewer_samples(tmp_path):
    asked = question(tmp_path, samples=2)
    fill(asked, lambda policy: 0.5)
    assert set(answer(asked)["base"]["own"]["pass_at"]) == {"1"}


def test_the_recipe_it_writes_runs(tmp_path):
    asked = question(tmp_path)
    fill(asked, like(1.2, 0.8, {PAPER: (0.9, 0.8), MILD: (1.29, 0.7)}))
    path = tmp_path / "recipe.yaml"
    path.write_text(words.recipe_text(asked.recipe, answer(asked)))
    written = Recipe.load(path)
    assert written.name == "quickstart-probed"
    assert written.sample.decoding.model_dump() == PAPER.__dict__
    assert written.evaluate.decoding.temperature == 0.9
    assert written.evaluate.base_best and written.evaluate.base_best.temperature == 1.2
    assert written.evaluate.curve is None
    files, plans = pipeline.plan(written, tmp_path / "run")
    assert [plan.action for plan in plans] == ["start"] * len(plans)
    given = Recipe.load("quickstart")
    assert written.train == given.train and written.arms == given.arms and written.problems.test == given.problems.test


def interval(mean, reach):
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    asked = question(tmp_path_factory.mktemp("answered"))
    fill(asked, like(1.2, 0.8, {PAPER: (0.9, 0.8), MILD: (1.29, 0.7)}))
    return answer(asked)


@pytest.fixture
def facts(answered):
    return copy.deepcopy(answered)


@pytest.mark.parametrize(
    "mean, reach, opening",
    [
        (0.05, 0.04, "Room found, train"),
        (0.005, 0.002, "Nothing to gain"),  # clear of zero, but below one point
        (-0.03, 0.01, "Nothing to gain"),
        (0.008, 0.05, "Nothing to gain"),
        (0.03, 0.05, "Perhaps"),
    ],
)
def test_verdict_follows_the_rule(mean, reach, opening, facts):
    facts["room"] = interval(mean, reach)
    said = words.verdict(facts)
    assert said[0].startswith(opening)
    assert any("Two-stage decoding needs no training" in line for line in said)
    assert any("if training fits perfectly" in line for line in said)
    # The rule itself can be had at once, where there is something in it.
    folder = Path(facts["recipe_file"]).parent
    assert any(f"mlx-ssd export {folder} --target preset" in line for line in said) == opening.startswith("Room")


def test_verdict_says_when_the_decoding_rule_alone_is_enough(facts):
    facts["room"] = interval(0.0, 0.02)
    facts["base"]["gain_of_best_over_own"] = interval(0.08, 0.03)
    said = " ".join(words.verdict(facts))
    assert "decoding rule alone is enough" in said
    assert "T 1.2, top-k 20, top-p 0.8 instead of the recipe's T 0.9, top-k 20, top-p 0.8" in said
    facts["base"]["gain_of_best_over_own"] = interval(0.01, 0.03)
    assert "Without any training" not in " ".join(words.verdict(facts))


def test_warnings_of_a_grid_too_small_and_answers_cut(facts):
    assert facts["warnings"] == []
    facts["base"]["best"]["temperature"] = 1.5
    facts["policies"][0]["at_end_of_grid"] = True
    facts["cut_at_max_tokens"] = 0.9
    facts["not_graded"] = 3
    said = words.warnings(facts)
    assert len(said) == 4 and "raise it and probe again" in said[2]


def test_tables_fit_a_terminal_of_80_columns(facts, capsys):
    from rich.console import Console

    words.show(facts, Console(width=80, highlight=False))
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert "| 1.6,20,0.8 | 0.9 |" in words.markdown(facts)


# The command

TINY = (
    "--problems", "8",
    "--samples", "2",
    "--policy", "1.6,20,0.8",
    "--set", "evaluate.max_tokens=64",
)  # fmt: skip
BUNDLED = faults.environment("bundled")  # the same draws in other batches


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("probe") / "whole"
    process = faults.run("probe", "quickstart", "--out", str(out), *TINY, env=BUNDLED)
    assert process.returncode == 0, process.stderr
    return out, process


def facts_of(directory):
    """All but the folder's own name."""
    return json.loads((directory / "probe.json").read_text()) | {"recipe_file": None}


def test_probe_of_the_embedded_model(finished):
    out, process = finished
    facts = json.loads((out / "probe.json").read_text())
    decodings = len(facts["base"]["tried"]) + 5 + 5
    assert f"{16 * decodings} completions of at most 64 tokens to draw: {decodings} decodings" in process.stderr
    assert "at the pace of the first batch" in process.stderr
    assert facts["verdict"][0] in process.stdout.replace("\n", " ")
    assert facts["problems"] == 8 and facts["suite"] == "embedded-validation"
    assert 0.2 < facts["base"]["best"]["pass_at"]["1"] < 1  # the model is no wreck and no saint
    assert len(list((out / "eval/base").glob("*.grades.jsonl"))) == decodings
    assert f"mlx-ssd run {out}/recipe.yaml" in process.stdout.replace("\n", "")
    dry = CliRunner().invoke(main, ["run", str(out / "recipe.yaml"), "--dry-run"])
    assert dry.exit_code == 0 and "runs/quickstart-probed" in dry.output


def test_finished_probe_draws_nothing_again(finished):
    out, _ = finished
    before = {path: path.read_bytes() for path in out.rglob("*.json*")}
    process = faults.run("probe", "quickstart", "--out", str(out), *TINY, env=BUNDLED)
    assert process.returncode == 0 and "completions" not in process.stderr
    assert {path: path.read_bytes() for path in out.rglob("*.json*")} == before


def test_fewer_problems_of_what_is_there(finished, tmp_path):
    out = tmp_path / "fewer"
    shutil.copytree(finished[0], out)
    more = faults.run("probe", "quickstart", "--out", str(out), *TINY, "--problems", "9", env=BUNDLED)
    fewer = faults.run("probe", "quickstart", "--out", str(out), *TINY, env=BUNDLED)
    assert more.returncode == fewer.returncode == 0, more.stderr + fewer.stderr
    assert "16 completions" not in fewer.stderr
    assert facts_of(out) == facts_of(finished[0])


@pytest.mark.slow
def test_killed_probe_goes_on_to_the_same_answer(finished, tmp_path):
    whole, killed = finished[0], tmp_path / "killed"
    hit = faults.kill_and_resume(
        ["probe", "quickstart", "--out", str(killed), *TINY],
        grows=lambda: faults.size_of(killed, "eval/base/*.jsonl"),
        expected_bytes=faults.size_of(whole, "eval/base/*.jsonl"),
        kills=3,
        seed=1,
        env=BUNDLED,
    )
    assert hit >= 2
    for journal in (whole / "eval/base").glob("*.jsonl"):
        assert sorted((killed / "eval/base" / journal.name).read_text().splitlines()) == sorted(
            journal.read_text().splitlines()
        )
    assert facts_of(killed) == facts_of(whole)


def test_bad_input_is_one_sentence_and_exit_2(tmp_path):
    for arguments in (
        ["probe", "no-such-thing"],
        ["probe", "--policy", "1.6,20"],
        ["probe", "--samples", "1"],
        ["probe", "--problems", "1"],
        ["probe", "--set", "problems.validation={source: jsonl, path: nowhere.jsonl}"],
        ["probe", str(tmp_path)],
    ):
        result = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / "out")])
        assert result.exit_code == 2 and result.output.startswith("mlx-ssd: ") and result.output.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_help_says_how_many_problems_and_samples_are_usual():
    shown = " ".join(CliRunner().invoke(main, ["probe", "--help"]).output.split())
    assert f"usually {PROBLEMS}" in shown and f"usually {SAMPLES}" in shown
