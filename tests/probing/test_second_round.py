"""The probe of a second round: what is tried, against what it is measured, and what is written where it is shown."""

import pytest

from mlx_ssd import pipeline
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.export import preset
from mlx_ssd.probing import words
from mlx_ssd.probing.probe import answer
from mlx_ssd.recipe import Recipe

from .made_up import MILD, PAPER, fill, like, question


@pytest.fixture
def shown(tmp_path):
    asked = question(tmp_path, problems=100)
    fill(asked, like(1.2, 0.8, {PAPER: (0.9, 0.6), MILD: (1.29, 0.5)}, (1.05, 0.9)))
    return asked, answer(asked)


def test_it_is_measured_against_the_best_of_one_round(shown):
    second = shown[1]["second_round"]
    assert second["over_one"]["low"] < 0.3 < second["over_one"]["high"] and second["best"]["temperature"] == 1.05
    assert second["room"]["low"] < 0.3 < second["room"]["high"]  # of the base: 0.6 too
    said = " ".join(shown[1]["verdict"])
    assert said.startswith("Room found, train: a room of +") and "the base at its best and two rounds" in said
    assert "that they are chosen for what they were shown to add makes these figures a little too high" in said
    assert "A second round at T 1 adds +" in said and "then T 1, top-k 20, top-p 0.8, then T 1.05" in said
    assert "A student of these two rounds" in said
    assert "| 1.6,20,0.8 1 | 1.05 |" in words.markdown(shown[1])


def test_its_recipe_goes_through_both_and_its_preset_has_a_stage_for_each(shown):
    asked, facts = shown
    path = asked.directory / "recipe.yaml"
    path.write_text(words.recipe_text(asked.recipe, facts))
    written = Recipe.load(path)
    assert written.rounds.count == 2 and written.rounds.temperatures == (1.6, 1.0)
    assert {1.05, 1.2} <= {*written.evaluate.curve.temperatures} and written.evaluate.base_best is None
    assert set(written.evaluate.curve.base_top_p) == {*asked.recipe.evaluate.curve.base_top_p}
    assert written.evaluate.decoding.temperature == 1.05
    files, plans = pipeline.plan(written, asked.directory / "run")
    assert [plan.action for plan in plans] == ["start"] * len(plans)
    rule = preset.rule_of(asked.directory)
    assert [stage["temperature"] for stage in rule.stages] == [1.6, 1.0, 1.05]


def test_where_it_is_not_shown_one_round_is_written(tmp_path):
    asked = question(tmp_path)
    fill(asked, like(1.2, 0.8, {PAPER: (0.9, 0.8), MILD: (1.29, 0.7)}, (0.9, 0.8)))
    facts = answer(asked)
    assert facts["second_round"]["over_one"]["low"] < 0
    assert any("A second round at T 1 is not shown to add" in line for line in facts["verdict"])
    (tmp_path / "recipe.yaml").write_text(words.recipe_text(asked.recipe, facts))
    assert Recipe.load(tmp_path / "recipe.yaml").rounds.count == 1
    assert len(preset.rule_of(tmp_path).stages) == 2


def test_the_end_of_its_grid_is_a_warning(tmp_path):
    asked = question(tmp_path)
    fill(asked, like(1.2, 0.8, {PAPER: (0.9, 0.6), MILD: (1.29, 0.5)}, (1.2, 0.95)))
    said = " ".join(answer(asked)["warnings"])
    assert "3-stage decoding does best at the end of those tried (T_eval 1.2)" in said


def test_a_second_round_is_tried_after_the_first_policy_where_that_heats(tmp_path):
    asked = question(tmp_path)
    *_, last = asked.entries()
    assert [stage.temperature for stage in last.policy.stages] == [1.6, 1.0, 1.2] and last.label == "3-stage"
    assert [e.policy.stages[-1].temperature for e in asked.after(*asked.two_rounds)] == [0.6, 0.75, 0.9, 1.05, 1.2]
    cool = question(tmp_path, policies=(DecodingPolicy(0.8, 20, 0.8),))
    assert cool.two_rounds == () and len(cool.entries()) == len(cool.base()) + 5
