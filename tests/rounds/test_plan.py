"""What a plan counts of several rounds."""

import pytest

from mlx_ssd.budget import Costs
from mlx_ssd.budget.work import decodings_of_curve, sampled_apart
from mlx_ssd.planning.plan import known_config, plan_for
from mlx_ssd.planning.words import in_full
from mlx_ssd.recipe import Recipe
from mlx_ssd.report.prediction import against_plan

MAC = {"system": "macOS", "chip": "Apple M4 Pro", "memory_bytes": 24 * 2**30}


def recipe(**settings):
    return Recipe.load("quickstart", {key.replace("__", "."): value for key, value in settings.items()})


def costs(of):
    from mlx_ssd.budget import ChipSpeed, chip_of

    return Costs.of(of, known_config(of.model), MAC, ChipSpeed(chip_of(MAC)))


def test_samples_are_drawn_by_whose_they_are():
    # Two arms, which differ in their targets alone.
    assert sampled_apart(recipe()) == 1
    assert sampled_apart(recipe(rounds=3, rounds__teacher="base")) == 3
    assert sampled_apart(recipe(rounds=3)) == 1 + 2 + 2
    assert sampled_apart(recipe(rounds=3, arms=[])) == 3
    assert sampled_apart(recipe(rounds=2, arms=[{"name": "once", "set": {"rounds.count": 1}}])) == 2


def test_every_round_is_trained_and_validated():
    once, thrice = recipe(arms=[]), recipe(arms=[], rounds=3)
    base, student = decodings_of_curve(once)
    assert decodings_of_curve(thrice) == [base, 3 * student]
    one, three = (costs(of).seconds(100) for of in (once, thrice))
    assert three["train"] == pytest.approx(3 * one["train"]) and three["sample"] == pytest.approx(3 * one["sample"])
    assert one["evaluate"] < three["evaluate"] < 3 * one["evaluate"]


def test_the_plan_says_so_and_auto_is_the_most():
    text = in_full(plan_for(recipe(rounds="auto"), known_config(recipe().model), MAC, None))
    assert "time and disk are those of 6 rounds, the most there may be" in text
    assert "rounds" not in in_full(plan_for(recipe(), known_config(recipe().model), MAC, None))
    disk = [plan_for(of, known_config(of.model), MAC, None).disk for of in (recipe(arms=[]), recipe(arms=[], rounds=4))]
    assert disk[1]["adapters"] == 4 * disk[0]["adapters"] and disk[1]["samples"] == 4 * disk[0]["samples"]


def test_the_report_sets_validation_beside_the_evaluation_that_was_planned():
    stages = {name: {"peak_bytes": 1, "seconds": 10} for name in ("sample", "train", "evaluate")}
    of_both = {"evaluate": (3, 1), "validate.round-2": (4, 2)}
    measured = {name: {"seconds": s, "peak_mlx_bytes": b} for name, (s, b) in of_both.items()}
    (row,) = against_plan({"stages": stages}, measured)
    assert row["seconds"] == {"predicted": 10, "measured": 7} and row["peak_bytes"]["measured"] == 2
