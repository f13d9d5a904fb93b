"""After several rounds the control is the same rounds as a decoding rule, and the preset writes that rule."""

import json

import numpy as np
import pytest

from mlx_ssd import controls
from mlx_ssd.arms import students
from mlx_ssd.comparisons import compared
from mlx_ssd.controls import curve_entries, ideal_student, policy_of
from mlx_ssd.decoding.policy import DecodingPolicy, StagedPolicy
from mlx_ssd.export.preset.llama_cpp import chain_of
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Score
from mlx_ssd.scoring import Outcome
from tests.export.conftest import invoke
from tests.export.test_preset import llama_cpp

from .made_up import validation, write

TEXT = """
problems: {validation: {limit: 5}}
evaluate: {curve: {temperatures: [0.5, 1.2]}}
rounds: {count: 3, temperatures: [1.6, 1.0], floors: {pass_gap: 0, distinct: 0, fork_entropy: 0}}
arms:
- {name: base-taught, set: {rounds.teacher: base}}
- {name: once, set: {rounds.count: 1, rounds.temperatures: []}}
- {name: as-it-is, set: {sample.decoding.top_k: 0, sample.decoding.top_p: 1}}
"""
SECOND = "3-stage-t1.6-k20-p0.8-then-t1-k20-p0.8-then-t1.2-k20-p0.8"


@pytest.fixture
def run(tmp_path):
    """Of the main arm the second of three rounds is kept, at T 1.2; of the others the first, the third, the third."""
    rates = {"student": (0.6, 0.7, 0.6), "base-taught": (0.7, 0.6, 0.6), "as-it-is": (0.5, 0.6, 0.7)}
    for arm, of in rates.items():
        write(tmp_path, validation(0), *(validation(n, rate, temperature=1.2) for n, rate in enumerate(of, 1)), arm=arm)
    (tmp_path / "recipe.yaml").write_text(Recipe.parse(TEXT, "recipe").to_yaml())
    return tmp_path


def rules(run):
    recipe = Recipe.load(run / "recipe.yaml")
    return {
        arm.name: ideal_student(arm, policy_of(arm.recipe.evaluate.decoding)) for arm in students(recipe, run)
    }


def test_it_has_a_stage_for_each_round_that_made_the_student(run):
    found = {arm: policy.name() for arm, policy in rules(run).items()}
    assert found["student"] == SECOND
    assert found["base-taught"] == "two-stage-t1.6-k20-p0.8-then-t1.2-k20-p0.8"  # of the kept round's own
    assert found["once"] == "two-stage-t1.6-k20-p0.8-then-t0.9-k20-p0.8"
    # T 1 without truncation does nothing: of three rounds one stage is left.
    assert found["as-it-is"] == "two-stage-t1.6-k0-p1-then-t1.2-k20-p0.8"


def test_the_last_rounds_own_policy_counts_where_the_base_teaches(run):
    rates = enumerate((0.6, 0.8, 0.7), 1)
    write(run, validation(0), *(validation(n, rate, temperature=1.2) for n, rate in rates), arm="base-taught")
    assert rules(run)["base-taught"].name() == "two-stage-t1-k20-p0.8-then-t1.2-k20-p0.8"


def test_it_is_asked_on_the_test_problems_and_compared_with_its_student(run):
    recipe = Recipe.load(run / "recipe.yaml")
    entries = controls.test_entries(recipe, run)
    asked = {(entry.label, entry.policy.name()) for entry in entries}
    assert ("3-stage", SECOND) in asked and ("student", "t1.2-k20-p0.8") in asked
    on_curve = {entry.policy.name() for entry in curve_entries(recipe, run) if entry.label == "3-stage"}
    assert on_curve == {SECOND, SECOND.replace("t1.2", "t0.5")}
    outcomes = [outcome(entry) for entry in entries]
    pairs = {(c["arm"], c["baseline"], c["baseline_decoding"]) for c in compared(recipe, run, outcomes)["comparisons"]}
    assert ("student", "3-stage", SECOND) in pairs
    assert not [pair for pair in pairs if pair[:2] == ("student", "two-stage")]


def outcome(entry):
    """Of two problems with two samples each."""
    of = {"problems": 2, "graded_problems": 2, "samples_per_problem": 2, "pass_at": {}, "pass_at_by_difficulty": {}}
    of |= {"verdicts": {}, "finish_reasons": {}, "extractable_code": 1.0, "completion_tokens": 3.0}
    score = Score(arm=entry.label, suite=entry.suite, decoding=entry.policy.name(), **of)
    return Outcome(score, [(2, 1), (2, 2)], [3.0, 3.0])


def test_the_preset_is_that_rule(run):
    assert "of 3-stage decoding" in invoke(run, "--target", "preset").output
    folder = run / "export" / "preset"
    held = json.loads((folder / "preset.json").read_text())
    assert [stage["temperature"] for stage in held["stages"]] == [1.6, 1.0, 1.2]
    assert held["effective_temperature"] == pytest.approx(1.92)
    said = (folder / "README.md").read_text()
    assert said.startswith("# 3-stage decoding of embedded") and "3. Of these" in said and "4." not in said
    own = invoke(run, "--target", "preset", "--arm", "once")
    assert own.exit_code == 0 and "of two-stage decoding" in own.output


def test_a_student_of_the_base_as_it_is_has_no_preset(run):
    plain = {"name": "plain", "set": {"sample.decoding": {"temperature": 1, "top_k": 0, "top_p": 1}}}
    (run / "recipe.yaml").write_text(Recipe.parse("", "recipe", {"arms": [plain]}).to_yaml())
    result = invoke(run, "--target", "preset", "--arm", "plain")
    assert result.exit_code == 2 and "an ideal student is the base" in result.output


def test_llama_cpp_says_three_stages_where_all_heat():
    stages = DecodingPolicy(1.6, 20, 0.8), DecodingPolicy(1.0, 20, 0.8), DecodingPolicy(1.2, 20, 0.8)
    chain = chain_of(stages)
    for said, wanted in zip(chain.stages, stages, strict=True):
        assert said.temperature == pytest.approx(wanted.temperature, rel=0.02)
    policy, rng = StagedPolicy(*chain.stages), np.random.default_rng(0)
    for spread in np.linspace(0.5, 8, 20):
        logits = rng.normal(size=400) * spread
        assert np.abs(llama_cpp(chain, logits) - policy.reference_probabilities(logits)).max() < 1e-12
    assert "no chain was looked for" in chain_of([*stages, *stages])
    assert "one stage heats" in chain_of([*stages, DecodingPolicy(0.6, 20, 0.8)])
