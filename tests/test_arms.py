"""Who is compared in a run, which files they share, and with what they are decoded."""

from pathlib import Path

import pytest

from mlx_ssd import controls
from mlx_ssd.arms import base, students
from mlx_ssd.controls import choose_best, curve_entries, ideal_student
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.errors import BadInput
from mlx_ssd.recipe import Recipe
from mlx_ssd.stages import units

ARMS = """
problems: {validation: {limit: 5}}
train: {targets: distribution}
evaluate: {curve: {temperatures: [0.5, 1.5], base_top_p: [1.0]}}
arms:
- {name: tokens, set: {train.targets: tokens}}
- {name: finished, set: {curate.unfinished: drop}}
- {name: plain, set: {sample.decoding: {temperature: 1.0, top_k: 0, top_p: 1.0}}}
- {name: plain-soft, set: {sample.decoding: {temperature: 1.0, top_k: 0, top_p: 1.0}, train.rank: 2}}
- {name: warm, set: {evaluate.decoding.temperature: 1.2}}
"""
RUN = Path("runs/x")


@pytest.fixture
def recipe():
    return Recipe.parse(ARMS, "recipe")


def test_arms_share_what_they_make_alike(recipe):
    shared = {arm.name: (arm.files.samples_of, arm.files.rows_of) for arm in students(recipe, RUN)}
    assert shared == {
        "student": ("student", "student"),
        "tokens": ("student", "student"),
        "finished": ("student", "finished"),
        "plain": ("plain", "plain"),
        "plain-soft": ("plain", "plain"),
        "warm": ("student", "student"),
    }


def test_every_arm_trains_into_its_own_folder(recipe):
    folders = [arm.files.adapter for arm in students(recipe, RUN)]
    assert folders[0] == RUN / "round-1/adapter"
    assert folders[1:] == [RUN / "round-1/arms" / arm.name / "adapter" for arm in recipe.arms]
    assert base(recipe, RUN).files.evaluation == RUN / "eval/base"


def test_units_are_in_the_order_of_the_data(recipe):
    names = [unit.name for unit in units(recipe, RUN)]
    assert names == [
        "sample", "sample.plain",
        "curate", "curate.finished", "curate.plain",
        "train", "train.tokens", "train.finished", "train.plain", "train.plain-soft", "train.warm",
        "evaluate.base",
        "evaluate", "evaluate.tokens", "evaluate.finished", "evaluate.plain", "evaluate.plain-soft", "evaluate.warm",
        "score", "analyze", "report",
    ]  # fmt: skip


def test_an_arm_is_the_recipe_with_its_settings_over_it(recipe):
    own = recipe.of_arm("plain-soft")
    assert (own.train.rank, own.train.targets, own.sample.decoding.temperature) == (2, "distribution", 1.0)
    assert own.arms == () and recipe.of_arm("student") == recipe.model_copy(update={"arms": ()})


@pytest.mark.parametrize(
    "arms, words",
    [
        ("[{name: a, set: {train.rnk: 3}}]", "arm a: train.rnk is not a setting; did you mean train.rank?"),
        ("[{name: base, set: {}}]", "cannot be called base"),
        ("[{name: a, set: {model.path: x}}]", "cannot change model.path"),
        ("[{name: Base, set: {}}]", "cannot be called Base"),
        ("[{name: a, set: {}}, {name: a, set: {}}]", "two arms are called a"),
        ("[{name: a, set: {}}, {name: A, set: {}}]", "two arms are called a"),  # one folder on a Mac
        ("[{name: a/b, set: {}}]", "arms.0.name"),
    ],
)
def test_bad_arms_are_refused(arms, words):
    with pytest.raises(BadInput) as refused:
        Recipe.parse(f"arms: {arms}", "r.yaml")
    assert words in str(refused.value)


def test_each_student_has_its_controls_on_the_test_problems(recipe):
    found = [(entry.label, entry.files.arm, entry.policy.name()) for entry in controls.test_entries(recipe, RUN)]
    two_stage = "two-stage-t1.6-k20-p0.8-then-"
    assert found == [
        ("base", "base", "t0.9-k20-p0.8"),
        ("base", "base", "t1.2-k20-p0.8"),
        ("two-stage", "base", two_stage + "t0.9-k20-p0.8"),
        ("two-stage", "base", two_stage + "t1.2-k20-p0.8"),
        *((name, name, "t0.9-k20-p0.8") for name in ("student", "tokens", "finished", "plain", "plain-soft")),
        ("warm", "warm", "t1.2-k20-p0.8"),
    ]


def test_a_recipe_may_give_the_best_decoding_of_the_base():
    recipe = Recipe.parse("evaluate: {base_best: {temperature: 1.3, top_p: 0.9}}", "recipe")
    assert ("base-best", "t1.3-k20-p0.9") in [(e.label, e.policy.name()) for e in controls.test_entries(recipe, RUN)]


def test_the_curve_is_on_validation_problems_alone(recipe):
    entries = curve_entries(recipe, RUN)
    assert {entry.suite for entry in entries} == {"embedded-validation"}
    of_base = [entry.policy.name() for entry in entries if entry.label == "base"]
    assert of_base == ["t0.5-k20-p0.8", "t1.5-k20-p0.8", "t0.5-k20-p1", "t1.5-k20-p1"]
    assert {entry.label for entry in entries} == {"base", "two-stage", *(a.name for a in students(recipe, RUN))}
    with pytest.raises(BadInput, match="settings are not chosen on test problems"):
        Recipe.parse("evaluate: {curve: {}}", "recipe")


def test_the_best_decoding_is_kept_and_becomes_a_control(recipe, tmp_path):
    tried = [entry for entry in curve_entries(recipe, tmp_path) if entry.label == "base"]
    choose_best(list(zip(tried, [0.2, 0.7, 0.7, 0.1], strict=True)))
    best = [entry for entry in controls.test_entries(recipe, tmp_path) if entry.label == "base-best"]
    assert [(entry.suite, entry.policy.name()) for entry in best] == [("embedded-test", "t1.5-k20-p0.8")]


def test_sampling_that_leaves_the_base_as_it_is_has_no_ideal_student(recipe):
    own = DecodingPolicy(0.9, 20, 0.8)
    of = {arm.name: arm for arm in students(recipe, RUN)}
    assert ideal_student(of["plain"], own) is None
    assert ideal_student(of["student"], own).name() == "two-stage-t1.6-k20-p0.8-then-t0.9-k20-p0.8"


def test_an_arm_with_another_loop_stop_samples_for_itself():
    endless = Recipe.parse("arms: [{name: endless, set: {sample.stop_loops: null}}]", "recipe")
    assert [arm.files.samples_of for arm in students(endless, RUN)] == ["student", "endless"]
