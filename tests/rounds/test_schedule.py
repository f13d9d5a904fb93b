"""What a round changes in a recipe, which units a run has as rounds are decided, who shares samples with whom."""

from dataclasses import replace

import pytest

from mlx_ssd.arms import history, of_round, settled, students
from mlx_ssd.errors import BadInput
from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.rounds import beginning, recipe_of_round, standing, teacher
from mlx_ssd.stages import train as train_stage
from mlx_ssd.stages import units, validate

from .made_up import GAIN, validation, write

TEXT = """
problems: {train: {skip: 10, limit: 100}, validation: {limit: 5}}
evaluate: {curve: {temperatures: [0.5, 1.5]}}
"""
ROUNDS = """
rounds: {count: 3, prompts: fresh, temperatures: [1.6, 1.2]}
arms:
- {name: tokens, set: {train.targets: tokens}}
- {name: base-taught, set: {rounds.teacher: base, rounds.adapter: continue}}
- {name: once, set: {rounds.count: 1}}
- {name: base-too, set: {rounds.teacher: base, curate.unfinished: drop}}
"""


@pytest.fixture
def recipe():
    return Recipe.parse(TEXT + ROUNDS, "recipe")


def of(recipe, number):
    own = recipe_of_round(recipe, number)
    return own.sample.decoding.temperature, own.problems.train.skip, own.problems.train.limit


def test_temperature_and_prompts_of_a_round(recipe):
    assert [of(recipe, n) for n in (1, 2, 3)] == [(1.6, 10, 100), (1.2, 110, 100), (1.2, 210, 100)]
    same = Recipe.parse(TEXT + "rounds: 3", "recipe")
    assert [of(same, n) for n in (1, 3)] == [(1.6, 10, 100), (1.6, 10, 100)]


def test_rounds_may_be_written_as_their_count():
    assert Recipe.parse(TEXT + "rounds: auto", "recipe").rounds.count == "auto"
    both = Recipe.parse(TEXT + "rounds: 2", "recipe", {"rounds.teacher": "base"}).rounds
    assert (both.count, both.teacher, both.last) == (2, "base", 2)
    assert Recipe.parse(TEXT, "recipe", {"rounds": 4}).rounds.count == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rounds: 0", "rounds.count: must be a whole number from 1 on, or auto, not 0"),
        ("rounds: many", "rounds.count: must be a whole number from 1 on, or auto, not 'many'"),
        ("rounds: {count: 2, temperatures: [0]}", "rounds.temperatures"),
        ("rounds: {count: 2, prompts: fresh}\nproblems: {validation: {}}", "needs problems.train.limit"),
        ("rounds: 2\nevaluate: {curve: null}", "needs evaluate.curve"),
        ("rounds: 2\nsample: {engine: torch}", "give rounds.teacher base"),
        ("arms: [{name: round-2, set: {train.rank: 2}}]", "that name is taken"),
        ("arms: [{name: 3-stage, set: {train.rank: 2}}]", "that name is taken"),
        ("arms: [{name: two-stage, set: {train.rank: 2}}]", "that name is taken"),
    ],
)
def test_what_cannot_be_is_one_sentence(text, said):
    own = {line.split(":")[0] for line in text.splitlines()}
    rest = "\n".join(line for line in TEXT.splitlines() if line.split(":")[0] not in own)
    with pytest.raises(BadInput, match=said) as error:
        Recipe.parse(rest + "\n" + text, "recipe")
    assert "\n" not in str(error.value)


def test_fresh_prompts_must_be_there_for_every_round():
    there = Recipe.parse(TEXT + "rounds: {count: 19, prompts: fresh}", "recipe")
    validate.check(there)  # 10 + 19 x 100 of 2,000
    with pytest.raises(BadInput, match=r"20 rounds of 100 problems, after the first 10, are more than the 2000 there"):
        validate.check(there.model_copy(update={"rounds": there.rounds.model_copy(update={"count": 20})}))


def names(recipe, directory):
    return [unit.name for unit in units(recipe, directory)]


def test_one_round_is_what_it_always_was(tmp_path):
    recipe = Recipe.parse(TEXT, "recipe")
    last = ["evaluate.base", "evaluate", "score", "analyze", "report"]
    assert names(recipe, tmp_path) == ["sample", "curate", "train", *last]


def test_units_become_known_as_rounds_are_decided(tmp_path):
    recipe = Recipe.parse(TEXT + "rounds: auto\narms: [{name: tokens, set: {train.targets: tokens}}]", "recipe")
    first = ["validate.base", "sample", "curate", "train", "train.tokens", "validate", "validate.tokens"]
    last = ["evaluate.base", "evaluate", "evaluate.tokens", "score", "analyze", "report"]
    assert names(recipe, tmp_path) == first + last
    write(tmp_path, validation(0), validation(1, 0.6, {0: GAIN}))
    second = ["sample.round-2", "curate.round-2", "train.round-2", "validate.round-2"]
    assert names(recipe, tmp_path) == first + second + last
    write(tmp_path, validation(0), validation(1), arm="tokens")
    # Both go on; each draws from its own student.
    second = [
        "sample.round-2", "sample.tokens.round-2", "curate.round-2", "curate.tokens.round-2",
        "train.round-2", "train.tokens.round-2", "validate.round-2", "validate.tokens.round-2",
    ]  # fmt: skip
    assert names(recipe, tmp_path) == first + second + last
    write(tmp_path, validation(0), validation(1), validation(2), arm="tokens")  # two rounds without a gain
    assert names(recipe, tmp_path) == first + second + last
    assert standing(recipe.of_arm("tokens"), tmp_path, "tokens").over
    assert not standing(recipe, tmp_path, "student").over


def test_checks_of_a_later_round_see_the_recipe_of_all(recipe, tmp_path):
    write(tmp_path, validation(0), validation(1, 0.6, {0: GAIN}))
    second = [unit for unit in units(recipe, tmp_path) if unit.files.number == 2]
    of_second = {unit.stage: unit.recipe.problems.train.skip for unit in second}
    assert of_second == {"sample": 110, "curate": 110, "train": 110, "validate": 10}


def test_arms_share_samples_that_the_base_draws_and_only_those(recipe, tmp_path):
    for arm in ("student", "tokens", "base-taught", "base-too"):
        write(tmp_path, validation(0), validation(1), arm=arm)

    def shared(number):
        return {arm.name: (arm.files.samples_of, arm.files.rows_of) for arm in of_round(recipe, tmp_path, number)}

    alike = dict.fromkeys(("student", "tokens", "base-taught", "once"), ("student", "student"))
    assert shared(1) == alike | {"base-too": ("student", "base-too")}
    assert shared(2) == {
        "student": ("student", "student"),
        "tokens": ("tokens", "tokens"),
        "base-taught": ("base-taught", "base-taught"),
        "base-too": ("base-taught", "base-too"),
    }
    assert shared(3) == {}


def test_who_teaches_and_where_training_begins(recipe, tmp_path):
    write(tmp_path, validation(0), validation(1))
    own, files = recipe.of_arm("student"), RunFiles(tmp_path, number=2)
    assert teacher(own, files) == tmp_path / "round-1/adapter" and beginning(own, files) is None
    arm, files = recipe.of_arm("base-taught"), RunFiles(tmp_path, "base-taught", number=2)
    assert teacher(arm, files) is None and beginning(arm, files) == tmp_path / "round-1/arms/base-taught/adapter"
    first = replace(files, number=1)
    assert teacher(arm, first) is None and beginning(arm, first) is None


def test_a_later_round_is_made_of_the_adapter_before(recipe, tmp_path):
    files = RunFiles(tmp_path, number=2)
    for path in (files.rows, RunFiles(tmp_path).adapter / "adapters.safetensors"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    own = recipe_of_round(recipe.of_arm("student"), 2)
    assert {"rows", "teacher"} <= train_stage.inputs(own, files).keys()
    goes_on = own.model_copy(update={"rounds": own.rounds.model_copy(update={"adapter": "continue"})})
    before = train_stage.inputs(goes_on, files)
    (RunFiles(tmp_path).adapter / "adapters.safetensors").write_text("y")
    after = train_stage.inputs(goes_on, files)
    assert {name for name in after if before[name] != after[name]} == {"teacher", "beginning"}


def test_students_are_those_of_the_kept_round_at_its_temperature(tmp_path):
    recipe = Recipe.parse(TEXT + "rounds: 2\narms: [{name: tokens, set: {rounds.count: 1}}]", "recipe")
    assert [arm.files.number for arm in students(recipe, tmp_path)] == [1, 1]
    write(tmp_path, validation(0), validation(1, 0.5, temperature=1.5))
    assert students(recipe, tmp_path)[0].files.number == 1  # the best so far
    assert settled(recipe, tmp_path) == recipe
    write(tmp_path, validation(0), validation(1, 0.5, temperature=1.5), validation(2, 0.6, temperature=0.5))
    student, tokens = students(recipe, tmp_path)
    assert student.files.adapter == tmp_path / "round-2/adapter"
    assert student.recipe.evaluate.decoding.temperature == 0.5
    assert tokens.recipe.evaluate.decoding.temperature == 0.9 and tokens.files.number == 1  # not touched by the other's
    assert [arm.files.number for arm in history(recipe, tmp_path, "student")] == [1, 2]
    done = settled(recipe, tmp_path)
    assert settled(done, tmp_path) == done and done.of_arm("tokens").evaluate.decoding.temperature == 0.9
    score = next(unit for unit in units(recipe, tmp_path) if unit.stage == "score")
    assert score.recipe.evaluate.decoding.temperature == 0.5
    write(tmp_path, validation(0), validation(1, 0.6, temperature=1.5), validation(2, 0.5, temperature=0.5))
    kept = students(recipe, tmp_path)[0]
    assert kept.files.adapter == tmp_path / "round-1/adapter" and kept.recipe.evaluate.decoding.temperature == 1.5
