"""When a round follows, and which one is kept: rules on made-up validations."""

import pytest

from mlx_ssd.report.rounds import round_facts, said
from mlx_ssd.rounds import decisions
from mlx_ssd.sections import Floors, Rounds

from .made_up import GAIN, validation

AUTO = Rounds(count="auto")
BASE = validation(0)


def after(rounds, *found):
    return decisions(rounds, (BASE, *found))


def test_before_any_round_nothing_is_decided():
    assert decisions(AUTO, ()) == decisions(AUTO, (BASE,)) == []


def test_a_number_of_rounds_is_what_it_is_whatever_comes_of_them():
    found = [validation(n, 0.5 - n / 10, distinct=0.0) for n in (1, 2, 3)]
    assert [d.go_on for d in after(Rounds(count=3), *found)] == [True, True, False]
    assert after(Rounds(count=3), *found)[-1].because == "round 3 of 3"


def test_auto_goes_on_while_each_round_is_better_than_the_best_before_and_ends_at_most():
    found = [validation(1, 0.6, {0: GAIN}), validation(2, 0.7, {0: GAIN, 1: GAIN})]
    first, second = after(AUTO, *found)
    assert first.go_on and second.go_on and second.because == "better than all before"
    assert [d.kept for d in (first, second)] == [1, 2]
    last = after(Rounds(count="auto", most=2), *found)[-1]
    assert not last.go_on and "rounds.most" in last.because


def test_auto_ends_when_two_rounds_in_a_row_are_not_shown_to_be_better():
    once = after(AUTO, validation(1, 0.6))
    assert once[-1].go_on and not once[-1].better
    twice = after(AUTO, validation(1, 0.6), validation(2, 0.61))
    assert not twice[-1].go_on and twice[-1].because.startswith("2 rounds in a row")
    assert twice[-1].kept == 2  # the best by its mean, whether or not that is shown
    between = after(AUTO, validation(1, 0.6), validation(2, 0.7, {1: GAIN}), validation(3, 0.7))
    assert between[-1].go_on


def test_a_round_that_is_worse_is_not_better_either():
    lost = validation(1, 0.3, {0: (-0.3, -0.1)}), validation(2, 0.3, {0: (-0.3, -0.1)})
    assert not after(AUTO, *lost)[-1].go_on


def test_the_rival_is_the_best_round_before_the_base_included():
    first, second = after(AUTO, validation(1, 0.4), validation(2, 0.45, {0: (-0.1, 0.01), 1: GAIN}))
    assert first.rival == 0 and second.rival == 0 and not second.better  # better than round 1 alone
    third = after(AUTO, validation(1, 0.6, {0: GAIN}), validation(2, 0.55), validation(3, 0.58, {2: GAIN}))[-1]
    assert third.rival == 1 and not third.better and third.kept == 1


def test_of_equal_rounds_the_first_is_kept():
    assert after(Rounds(count=2), validation(1, 0.6), validation(2, 0.6))[-1].kept == 1


@pytest.mark.parametrize(
    ("kind", "just_above", "just_below"),
    [("pass_gap", 0.051, 0.049), ("distinct", 0.41, 0.39), ("fork_entropy", 0.51, 0.49)],
)
def test_each_kind_of_diversity_has_its_floor(kind, just_above, just_below):
    (above,) = after(AUTO, validation(1, 0.9, {0: GAIN}, **{kind: just_above}))
    assert above.go_on and above.below_floors == ()
    (below,) = after(AUTO, validation(1, 0.9, {0: GAIN}, **{kind: just_below}))
    assert below.below_floors == (kind,) and not below.go_on and kind in below.because
    (off,) = after(Rounds(count="auto", floors=Floors(**{kind: 0})), validation(1, 0.9, {0: GAIN}, **{kind: 0.0}))
    assert off.go_on and off.below_floors == ()


def test_a_round_below_a_floor_is_neither_kept_nor_a_rival():
    found = validation(1, 0.6, {0: GAIN}), validation(2, 0.9, {0: GAIN, 1: GAIN}, distinct=0.1)
    assert after(Rounds(count=3), *found)[-1].kept == 1
    third = after(Rounds(count=3), *found, validation(3, 0.7, {0: GAIN, 1: GAIN}))[-1]
    assert third.rival == 1 and third.better and third.kept == 3


def test_where_every_round_is_below_the_first_is_kept():
    found = validation(1, 0.6, distinct=0.1), validation(2, 0.9, distinct=0.1)
    assert after(Rounds(count=2), *found)[-1].kept == 1


def test_diversity_that_was_not_measured_has_no_floor():
    found = validation(1)
    del found["diversity"]["fork_entropy"], found["diversity_of_base"]["fork_entropy"]
    base = validation(0)
    del base["diversity"]["pass_gap"]
    assert decisions(AUTO, (base, found))[0].below_floors == ()


def test_the_report_has_every_round_and_says_which_was_kept_and_why_it_ended():
    found = [BASE, validation(1, 0.6, {0: GAIN}), validation(2, 0.4, distinct=0.1, temperature=0.6)]
    facts = round_facts({"student": (AUTO, found)})
    assert [(entry["round"], entry.get("kept")) for entry in facts] == [(0, None), (1, True), (2, False)]
    assert facts[1]["difference_to_base"] == found[1]["differences"]["0"]
    assert facts[2]["difference_to_best_before"] == found[2]["differences"]["1"]
    assert facts[2]["below_floors"] == ["distinct"] and facts[2]["temperature"] == 0.6
    assert said(facts) == [
        "Of 2 rounds of student, round 1 was kept, at T 0.9; below the floor of diversity in some round: different "
        "answers. The end: diversity fell below its floor (distinct)."
    ]


def test_where_every_round_is_below_a_floor_the_one_that_is_kept_is_said_to_be_so_too():
    found = [BASE, validation(1, 0.6, {0: GAIN}, distinct=0.1), validation(2, 0.8, distinct=0.1)]
    (line,) = said(round_facts({"student": (Rounds(count=2), found)}))
    assert "round 1 was kept" in line
    assert "different answers, in the kept one too, since no round is above. The end" in line
