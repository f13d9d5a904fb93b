"""The recipe: strict, one sentence for every mistake, one place with defaults."""

import pytest
import yaml

from mlx_ssd import recipe, recipe_text
from mlx_ssd.errors import BadInput
from mlx_ssd.recipe import Recipe
from mlx_ssd.sections import LoopStop
from mlx_ssd.stages import get


def refused(text="", overrides=None, where="r.yaml"):
    with pytest.raises(BadInput) as error:
        Recipe.parse(text, where, overrides)
    message = str(error.value)
    assert "\n" not in message and len(message) < 300
    return message


@pytest.mark.parametrize("name", recipe.names())
def test_every_recipe_loads_and_survives_a_round_trip(name):
    loaded = Recipe.load(name)
    assert loaded.name == name
    assert Recipe.parse(loaded.to_yaml(), "again") == loaded


def test_resolved_yaml_writes_out_every_default():
    def leaves(value, path=""):
        if isinstance(value, dict):
            return [leaf for key, inner in value.items() for leaf in leaves(inner, f"{path}{key}.")]
        return [path.rstrip(".")]

    written = set(leaves(yaml.safe_load(Recipe().to_yaml())))
    known = recipe_text.known_keys(Recipe)
    leaf_keys = {k for k in known if not any(o.startswith(k + ".") for o in known)}
    # A section that is absent by default, or a list, is written as one leaf.
    absent = {"problems.validation", "sample.server", "train.validation", "arms"}
    absent |= {f"evaluate.{name}" for name in ("base_best", "curve", "stop_loops")}
    of_absent = {key for key in leaf_keys if any(key.startswith(f"{section}.") for section in absent)}
    assert written == leaf_keys - of_absent | absent


def test_unknown_key_names_file_path_and_nearest():
    assert refused("train: {learning_rat: 1.0e-3}") == (
        "r.yaml: train.learning_rat is not a setting; did you mean train.learning_rate?"
    )


def test_right_word_in_the_wrong_section_is_pointed_to():
    assert "did you mean train.rank?" in refused("sample: {rank: 8}")


def test_wrong_type_names_the_value():
    message = refused("train: {rank: many}")
    assert message.startswith("r.yaml: train.rank: ") and "'many'" in message


def test_booleans_are_no_numbers():
    assert "train.epochs" in refused("train: {epochs: true}")


def test_exponents_without_a_point_are_numbers():
    assert Recipe.parse("train: {learning_rate: 1e-3}", "r").train.learning_rate == 1e-3


def test_whole_numbers_serve_as_floats():
    assert Recipe.parse("sample: {decoding: {temperature: 1}}", "r").sample.decoding.temperature == 1.0


def test_key_given_twice():
    assert "given twice" in refused("seed: 1\nseed: 2")


def test_contradictions():
    assert "evaluate.samples_per_problem is 2" in refused("evaluate: {samples_per_problem: 2, pass_at: [1, 5]}")
    assert "leave train.keys at all" in refused("train: {method: full, keys: [self_attn.q_proj]}")
    assert "leave nothing to train" in refused("train: {keys: []}")
    assert "pass_at 0" in refused("evaluate: {pass_at: [0]}")
    assert "betas" in refused("train: {betas: [2, 3]}")
    assert "temperature" in refused("sample: {decoding: {temperature: .inf}}")
    assert "needs a path" in refused("problems: {train: {source: jsonl}}")


def test_overrides_win_and_are_named():
    loaded = Recipe.parse("train: {rank: 4}", "r", dict([recipe.parse_override("train.rank=8")]))
    assert loaded.train.rank == 8
    assert refused(overrides={"train.rnk": 8}).startswith("--set: train.rnk is not a setting; did you mean train.rank")


@pytest.mark.parametrize("text", ["train.rank", "=3"])
def test_malformed_override(text):
    with pytest.raises(BadInput, match="section.key=value"):
        recipe.parse_override(text)


def test_override_through_a_leaf_is_refused():
    assert "seed" in refused(overrides={"seed.deeper": 1})


def test_not_yaml_and_not_a_mapping():
    assert "r.yaml, line" in refused("train: [1,")
    assert "mapping" in refused("- 1")
    assert "not valid YAML" in refused("name: 2024-99-99")
    assert "not valid YAML" in refused("? [a]\n: 1")


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(BadInput, match="did you mean quickstart"):
        Recipe.load("quickstrat")


def test_loop_stop_is_on_in_sampling_off_in_evaluation_and_may_be_changed():
    assert Recipe().sample.stop_loops == LoopStop() and Recipe().evaluate.stop_loops is None
    assert Recipe.parse("sample: {stop_loops: null}", "r").sample.stop_loops is None
    fewer = Recipe.parse("sample: {stop_loops: null}", "r", {"sample.stop_loops.repeats": 4})
    assert fewer.sample.stop_loops == LoopStop(repeats=4)
    assert Recipe.parse(fewer.to_yaml(), "again") == fewer
    arms = "[{name: endless, set: {sample.stop_loops: null}}]"
    assert Recipe.parse(f"arms: {arms}", "r").of_arm("endless").sample.stop_loops is None


def test_loop_stop_refuses_what_means_nothing():
    assert "sample.stop_loops.repeats" in refused("sample: {stop_loops: {repeats: 1}}")
    assert "did you mean sample.stop_loops.period" in refused("sample: {stop_loops: {perid: 3}}")
    assert "sample.stop_loops" in refused("sample: {stop_loops: true}")
    assert "evaluate.stop_loops.min_tokens" in refused("evaluate: {stop_loops: {min_tokens: 0}}")


@pytest.mark.parametrize("stage", ["sample", "evaluate"])
def test_loop_stop_is_part_of_what_its_stage_is_made_of(stage):
    made_of = [get(stage).settings(Recipe.parse(f"{stage}: {{stop_loops: {value}}}", "r")) for value in ("null", "{}")]
    assert [settings[stage]["stop_loops"] for settings in made_of] == [None, LoopStop().model_dump()]
