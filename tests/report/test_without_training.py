"""Where two-stage decoding has a gain that the student does not beat, the report says how to have it untrained."""

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
    assert line == (
        "Two-stage decoding beats base-best without training, and student is not shown to beat it. "
        "Wherever the decoder is one's own: mlx-ssd export 'runs/my run' --target preset"
    )


def test_after_several_rounds_it_is_the_rule_of_all_of_them():
    (line,) = said(student_best=BEATS, student_threestage=EVEN, threestage_best=BEATS)
    assert line.startswith("3-stage decoding beats base-best without training")
    assert said(tokens_twostage=LOSES, student_best=BEATS, student_threestage=EVEN, threestage_best=BEATS) == [line]
    assert not said(student_best=BEATS, student_threestage=BEATS, tokens_twostage=EVEN)  # another arm's rule


SURE, MAYBE, NOTHING = "beats base-best without training", "may have as much without training", None


@pytest.mark.parametrize(
    "found, words",
    [
        ({"student_best": BEATS, "student_twostage": EVEN, "twostage_best": BEATS}, SURE),
        ({"student_best": EVEN, "student_twostage": EVEN, "twostage_best": BEATS}, SURE),
        ({"student_best": BEATS, "student_twostage": LOSES, "twostage_best": BEATS}, SURE),
        # The rule's own gain is not shown: its interval holds 0, or the two were not compared.
        ({"student_best": (0.01, 0.09), "student_twostage": EVEN, "twostage_best": (-0.03, 0.05)}, MAYBE),
        ({"student_best": BEATS, "student_twostage": EVEN}, MAYBE),
        ({"student_base": BEATS, "student_twostage": EVEN}, MAYBE),  # no other control of the base
        # The rule is worse than the base, however little the student is told from it.
        ({"student_best": (0.01, 0.09), "student_twostage": (-0.001, 0.12), "twostage_best": (-0.09, -0.01)}, NOTHING),
        ({"student_best": BEATS, "student_twostage": BEATS, "twostage_best": BEATS}, NOTHING),  # training is worth it
        ({"student_best": BEATS}, NOTHING),  # not measured
        ({"student_best": EVEN, "student_twostage": EVEN, "twostage_best": EVEN}, NOTHING),  # nothing was gained
        ({"student_base": BEATS, "student_best": EVEN, "student_twostage": EVEN}, NOTHING),  # its best does as well
        ({"tokens_best": BEATS, "student_twostage": EVEN, "student_best": EVEN}, NOTHING),  # another arm's gain
    ],
)
def test_it_says_no_more_than_the_numbers_do(found, words):
    lines = said(**found)
    assert [words in line for line in lines] == ([] if words is None else [True])
    assert all("has as much" not in line for line in lines)


def test_not_from_a_handful_of_problems():
    assert not said(problems=19, student_best=BEATS, student_twostage=EVEN)
