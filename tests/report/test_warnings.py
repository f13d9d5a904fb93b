"""What a reader must know before believing the table."""

from mlx_ssd.recipe import Recipe
from mlx_ssd.report.facts import of_the_best, warnings


def test_warnings():
    arm = {"name": "student", "curation": {"finish_reasons": {"length": 3, "stop": 1}}, "selection": {}}
    scores = {"scores": [{"problems": 9}], "trained_on": {"student": 4, "tokens": 0}}
    cut, leaked = warnings([arm], scores)
    assert cut.startswith("75 % of the samples of student were cut at sample.max_tokens or in a loop")
    assert leaked == "4 of the 9 test problems were prompts that student was trained on."


def best_at(temperature, base_best, base, tried=(0.6, 0.9, 1.35)):
    chosen_on = {"source": "embedded", "limit": 9}
    curve = {"evaluate.curve": {"temperatures": list(tried)}, "problems.validation": chosen_on}
    recipe = Recipe.parse("", "r", curve)
    scores = [("base", "t0.9", base), ("base", "t0.6", base - 0.1), ("base-best", f"t{temperature:g}", base_best)]
    rows = [{"arm": arm, "decoding": name, "pass_at": {"1": {"mean": mean}}} for arm, name, mean in scores]
    best = {"decoding": {"temperature": temperature}, "suite": "v", "tried": [{}]}
    return of_the_best(recipe, best, {"scores": rows})


def test_a_best_that_may_not_be_the_best_is_said_to_be_so():
    assert best_at(0.9, 0.64, 0.63) == []
    (edge,) = best_at(1.35, 0.64, 0.63)
    assert edge.startswith("base-best is at T 1.35, the highest that evaluate.curve tried")
    assert best_at(0.6, 0.64, 0.63)[0].startswith("base-best is at T 0.6, the lowest")
    assert best_at(0.9, 0.64, 0.63, tried=(0.9,)) == []
    (below,) = best_at(0.9, 0.631, 0.644)
    assert below.startswith("On the test problems base-best (63.1 %) is below base at t0.9 (64.4 %)")
    assert len(best_at(1.35, 0.631, 0.644)) == 2
    assert of_the_best(Recipe(), {"decoding": {"temperature": 1.0}}, {"scores": []}) == []  # given, not chosen
    assert of_the_best(Recipe(), None, {"scores": []}) == []
