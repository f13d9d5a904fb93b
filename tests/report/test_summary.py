"""The four short answers: nothing in them that the intervals do not allow."""

import pytest

from mlx_ssd.report.summary import best_control, cost, of_controls, short_verdict, summary
from tests.report import synthetic


def report(**differences):
    """`differences`: of baseline, (mean, half width)."""
    found = synthetic.report()
    for comparison in found["comparisons"]:
        name = comparison["baseline"].replace("-", "_")
        if comparison["arm"] == "student" and name in differences:
            mean, half = differences[name]
            comparison["difference"]["1"] = synthetic._interval(mean, half)
    return found


def short(found):
    return short_verdict(found, of_controls(found))


def test_verdict_names_base_and_best_control_with_their_intervals():
    assert short(report()) == (
        "pass@1: student beats base at the same decoding (+10.0 [+7.0, +13.0]), two-stage (+2.0 [+1.0, +3.0])."
    )
    found = report(two_stage=(-0.02, 0.01))
    assert short(found).endswith("; loses to two-stage (-2.0 [-3.0, -1.0]).")
    found = report(base=(0.0, 0.01), two_stage=(0.01, 0.02))
    assert short(found) == (
        "pass@1: student cannot be told from base at the same decoding (+0.0 [-1.0, +1.0]), "
        "two-stage (+1.0 [-1.0, +3.0])."
    )


def test_best_control_is_the_one_that_scored_highest():
    found = report()
    assert best_control(found, of_controls(found)).baseline == "two-stage"
    (best,) = [score for score in found["scores"] if score["arm"] == "base-best"]
    best["pass_at"]["1"] = synthetic._interval(0.64, 0.05)
    assert best_control(found, of_controls(found)).baseline == "base-best"
    assert "Best control: base-best (the base at its best decoding, no training), pass@1 64.0 % [59.0, 69.0]" in (
        summary(found)["explained"][0]
    )


def test_other_students_are_no_controls():
    assert [c.baseline for c in of_controls(report())] == ["base", "base-best", "two-stage"]


@pytest.mark.parametrize(
    ("difference", "doubt"), [((0.05, 0.01), False), ((0.0, 0.01), True), ((-0.05, 0.01), True)]
)
def test_decoding_alone_is_named_where_the_best_control_is_not_beaten(difference, doubt):
    assert ("decoding alone may do as much" in summary(report(two_stage=difference))["explained"][0]) is doubt


def test_base_alone_is_not_called_the_best_there_is():
    found = report()
    found["comparisons"] = [c for c in found["comparisons"] if c["baseline"] == "base"]
    assert summary(found)["explained"][0].endswith("The base at its best decoding and in two stages was not measured.")


def test_how_sure():
    assert summary(report())["sure"] == [
        "95 % intervals over 200 problems, 8 samples each; not over other seeds.",
        "Told from every control that was measured.",
        "Smallest difference found with 80 % power: about ±5.0 points.",
    ]
    found = report(two_stage=(0.0, 0.02), base_best=(0.0, 0.02))
    assert summary(found)["sure"][1] == "Not told from: base-best, two-stage."
    for comparison in found["comparisons"]:
        del comparison["minimum_detectable_effect"]
    assert len(summary(found)["sure"]) == 2


def test_few_problems_give_no_verdict():
    found = report()
    for score in found["scores"]:
        score["graded_problems"] = 5
    assert short(found).endswith("5 problems are too few for a verdict.")
    assert summary(found)["sure"] == ["95 % intervals over 5 problems, 8 samples each: too few for a verdict."]


def test_without_tests():
    found = report()
    for comparison in found["comparisons"]:
        comparison["difference"] = {}
    for score in found["scores"]:
        score |= {"pass_at": {}, "graded_problems": 0}
    said = summary(found)
    assert said["verdict"] == ["No verdict: the test problems have no tests."]
    assert said["explained"] == ["No control could be compared."]


def test_where_a_problem_could_not_be_graded_that_is_what_is_said():
    found = report()
    for comparison in found["comparisons"]:
        comparison["difference"] = {}
    for score in found["scores"]:
        score |= {"pass_at": {}}
    assert summary(found)["verdict"] == ["No verdict: of some problem no sample of base could be graded."]
    for score in found["scores"]:
        score |= {"graded_problems": 1}
    assert summary(found)["verdict"] == ["No verdict: only 1 of the test problems has tests."]


def test_cost():
    assert cost(report()) == "12m24s, at most 1.8 GB of memory; energy was not measured."
