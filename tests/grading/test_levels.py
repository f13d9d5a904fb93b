"""What a recipe may demand of the sandbox, and what is said where there is little."""

import warnings

import pytest

from mlx_ssd.errors import BadInput
from mlx_ssd.grading import ProcessSandbox, levels
from mlx_ssd.grading.levels import LittleShutIn, check_level
from mlx_ssd.recipe import Recipe
from mlx_ssd.stages import evaluate


@pytest.fixture
def here(monkeypatch):
    def set_level(level):
        monkeypatch.setattr(levels, "level_here", lambda: level)

    return set_level


@pytest.mark.parametrize(
    "demand, enough",
    [
        ("any", {"namespaces", "landlock", "seatbelt", "limits"}),
        ("landlock", {"namespaces", "landlock", "seatbelt"}),
        ("namespaces", {"namespaces"}),
    ],
)
def test_a_demand_is_met_or_refused(here, demand, enough):
    for level in ("namespaces", "landlock", "seatbelt", "limits"):
        here(level)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LittleShutIn)
            if level in enough:
                check_level(demand)
            else:
                with pytest.raises(BadInput, match=f"evaluate.sandbox is {demand}, .* {level} only"):
                    check_level(demand)


def test_limits_alone_give_a_note(here):
    here("limits")
    with pytest.warns(LittleShutIn, match="read and write your files, use the network"):
        check_level("any")
    here("landlock")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_level("any")


def test_evaluation_refuses_before_it_begins(here):
    here("limits")
    recipe = Recipe.model_validate({"name": "x", "evaluate": {"sandbox": "namespaces"}})
    with pytest.raises(BadInput, match="set evaluate.sandbox to any"):
        evaluate.check(recipe)


@pytest.mark.parametrize("options, level", [({"namespaces": False}, "landlock"), ({"landlock": False}, "namespaces")])
def test_levels_follow_what_is_granted(options, level):
    whole = ProcessSandbox().mechanisms()
    if {"landlock": not whole["landlock"], "namespaces": not whole["root"]}[level]:
        pytest.skip(f"no {level} here")
    assert ProcessSandbox(**options).level() == level
    assert ProcessSandbox(namespaces=False, landlock=False).level() == "limits"
