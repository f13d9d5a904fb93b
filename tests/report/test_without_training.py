"""Where two-stage decoding has the student's gain, the report says how to have it without training."""

import pytest

from mlx_ssd.records import Comparison, Interval
from mlx_ssd.report.facts import without_training

BEATS, EVEN, LOSES = (0.01, 0.04), (-0.02, 0.02), (-0.04, -0.01)


def said(problems=100, run="runs/my run", **found):
    """Comparisons by name: student_base=BEATS, twostage_best=EVEN, …"""
    names = {"twostage": "two-stage", "threestage": "3-stage", "best": "base-best"}
    comparisons = []
    for pair, (low, high) in found.items():
        arm, against = (names.get(name, name) for name in pair.split("_"))
        difference = {1: Interval(mean=(low + high) / 2, low=low, high=high)}
        comparisons.append(
            Comparison(arm=arm, baseline=against, decoding="d", baseline_decoding="e", suite="s", difference=difference)
        )
    return without_training(comparisons, problems, run)


def test_it_names_the_command():
    (line,) = said(student_best=BEATS, student_twostage=EVEN, twostage_best=BEATS)
    assert "without training" in line and line.endswith("mlx-ssd export 'runs/my run' --target preset")


def test_after_several_rounds_it_is_the_rule_of_all_of_them():
    (line,) = said(student_best=BEATS, student_threestage=EVEN, threestage_best=BEATS)
    assert line.startswith("3-stage decoding has as much without training")
    assert said(tokens_twostage=LOSES, student_best=BEATS, student_threestage=EVEN, threestage_best=BEATS) == [line]
    assert not said(student_best=BEATS, student_threestage=BEATS, tokens_twostage=EVEN)  # another arm's rule


@pytest.mark.parametrize(
    "found, speaks",
    [
        ({"student_best": BEATS, "student_twostage": EVEN}, True),
        ({"student_best": EVEN, "student_twostage": EVEN, "twostage_best": BEATS}, True),
        ({"student_best": BEATS, "student_twostage": LOSES}, True),
        ({"student_base": BEATS, "student_twostage": EVEN}, True),  # no other control of the base
        ({"student_best": BEATS, "student_twostage": BEATS}, False),  # training is worth it
        ({"student_best": BEATS}, False),  # not measured
        ({"student_best": EVEN, "student_twostage": EVEN, "twostage_best": EVEN}, False),  # nothing was gained
        ({"student_base": BEATS, "student_best": EVEN, "student_twostage": EVEN}, False),  # its best does as well
        ({"tokens_best": BEATS, "student_twostage": EVEN, "student_best": EVEN}, False),  # another arm's gain
    ],
)
def test_it_speaks_where_the_numbers_say_so(found, speaks):
    assert bool(said(**found)) == speaks


def test_not_from_a_handful_of_problems():
    assert not said(problems=19, student_best=BEATS, student_twostage=EVEN)
