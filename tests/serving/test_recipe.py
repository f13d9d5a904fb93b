"""The recipe's part: what is refused, and what counts as other samples."""

import pytest

from mlx_ssd.arms import students
from mlx_ssd.errors import BadInput
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Sample
from mlx_ssd.stages import sample

SERVED = {"sample.engine": "server", "sample.server.url": "http://127.0.0.1:8000"}


def load(**changes):
    return Recipe.load("quickstart", {f"sample.{key.replace('__', '.')}": value for key, value in changes.items()})


def settings(**changes):
    return sample.settings(load(**changes))["sample"]


def test_the_server_counts_only_where_it_draws_and_only_in_what_it_draws():
    usual = settings()
    assert "server" not in usual and "engine" not in usual
    assert settings(server__url="http://a") == usual == settings(engine="torch")
    served = settings(engine="server", server__url="http://a")
    assert served != usual
    for same in ({"concurrency": 2}, {"timeout_seconds": 3.0}, {"retries": 1}, {"tolerance": 0.5}, {"url": "http://b"}):
        changes = {"server__url": "http://a"} | {f"server__{key}": value for key, value in same.items()}
        assert settings(engine="server", **changes) == served
    for other in ({"kind": "vllm"}, {"model": "m"}, {"seeds": False}, {"retokenize": "allow"}, {"order": "mlx_lm"}):
        changes = {f"server__{key}": value for key, value in other.items()}
        assert settings(engine="server", server__url="http://a", **changes) != served


def test_an_arm_that_is_sampled_by_a_server_has_samples_of_its_own(tmp_path):
    arms = [
        {"name": "served", "set": SERVED},
        {"name": "torch", "set": {"sample.engine": "torch"}},
    ]
    found = students(Recipe.load("quickstart", {"arms": arms}), tmp_path)
    assert [arm.files.samples_of for arm in found] == ["student", "served", "student"]


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://a", "http://", "http://a?key=b", "http://a#b", "/v1", "http://a:b:c"]
)
def test_an_address_must_be_one(url):
    with pytest.raises(BadInput, match=r"sample.server.url: (give it as http|.*[Pp]ort)"):
        load(engine="server", server__url=url)


def test_a_key_does_not_go_into_the_recipe():
    with pytest.raises(BadInput, match="would be written into the run; set MLX_SSD_SERVER_KEY"):
        load(engine="server", server__url="http://me:secret@a")


def test_the_engine_needs_an_address_and_evaluation_has_none():
    with pytest.raises(BadInput, match="engine server needs server.url"):
        load(engine="server")
    with pytest.raises(BadInput, match="evaluate.engine is not a setting"):
        Recipe.load("quickstart", {"evaluate.engine": "server"})


def test_a_recipe_with_a_server_is_written_out_and_read_again():
    recipe = Recipe.load("quickstart", SERVED)
    assert Recipe.parse(recipe.to_yaml(), "there") == recipe


def test_a_sample_that_no_server_drew_is_written_as_ever():
    fields = {
        "problem_id": "a", "sample_index": 0, "prompt_ids": [1], "completion_ids": [2], "finish_reason": "stop",
        "policy": "p", "seed": 0, "stream": "s", "model": "m", "template": "t",
    }  # fmt: skip
    line = Sample(**fields).line()
    assert line.endswith('"template":"t"}\n') and "drawn_by" not in line
    assert '"drawn_by":"vllm"' in Sample(**fields, drawn_by="vllm").line()
