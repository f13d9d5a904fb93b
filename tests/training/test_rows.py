import random

import pytest

from mlx_ssd.errors import BadInput
from mlx_ssd.training.rows import epoch_order, fit_rows, hold_out

from .tiny import Row, make_rows

LONG = Row("p/1", 4, [1] * 60, [2, 3, 4, 5, 6])
ALL_PROMPT = Row("p/2", 0, [1] * 64, [2])
EXACT = Row("p/3", 0, [1] * 60, [2, 3, 4, 5])


def test_a_row_of_exactly_max_length_is_kept_whole():
    fitted = fit_rows([EXACT], 64, "error")
    assert fitted.rows == [EXACT] and (fitted.dropped, fitted.cut) == (0, 0)


@pytest.mark.parametrize("row, tokens", [(LONG, "65 tokens, 60 of them"), (ALL_PROMPT, "65 tokens, 64 of them")])
def test_a_longer_one_is_refused_by_name(row, tokens):
    with pytest.raises(BadInput) as error:
        fit_rows([*make_rows(3), row], 64, "error")
    for word in (row.problem_id, f"sample {row.sample_index}", tokens, "train.max_length 64", "drop or cut"):
        assert word in str(error.value)


def test_dropped_and_counted():
    fitted = fit_rows([EXACT, LONG, ALL_PROMPT], 64, "drop")
    assert fitted.rows == [EXACT] and (fitted.dropped, fitted.cut) == (2, 0)


def test_cut_and_counted_without_an_invented_end():
    """Of the row that is all prompt nothing can be trained: mlx-lm's loss on it is 0 / 0 (issue 1355)."""
    fitted = fit_rows([EXACT, LONG, ALL_PROMPT], 64, "cut")
    assert (fitted.dropped, fitted.cut) == (1, 1)
    cut = fitted.rows[1]
    assert cut.completion_ids == [2, 3, 4, 5] and cut.prompt_ids == LONG.prompt_ids
    assert (cut.problem_id, cut.sample_index) == ("p/1", 4)


@pytest.mark.parametrize("row", [Row("p/1", 4, [], [2]), Row("p/1", 4, [1], [])])
@pytest.mark.parametrize("too_long", ["error", "drop", "cut"])
def test_an_empty_prompt_or_completion_is_named(row, too_long):
    with pytest.raises(BadInput, match=r"problem p/1, sample 4\) has an empty prompt or completion"):
        fit_rows([*make_rows(3), row], 64, too_long)


def test_nothing_to_train_on():
    with pytest.raises(BadInput, match="no training rows"):
        fit_rows([], 64, "error")
    with pytest.raises(BadInput, match=r"max_length 64 leaves none of 2 training rows: the shortest has 65 tokens"):
        fit_rows([LONG, ALL_PROMPT], 64, "drop")


def test_order_depends_on_seed_and_epoch_but_not_on_the_order_given():
    rows = make_rows(20)
    shuffled = random.Random(1).sample(rows, len(rows))
    assert epoch_order(rows, 0, 0) == epoch_order(shuffled, 0, 0)
    orders = [epoch_order(rows, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])
    assert orders[0] != rows


def test_order_is_pinned():
    """A change here changes what every recipe trains on: raise the stage version with it."""
    rows = [Row(name, 0, [1], [2]) for name in "abcdef"]
    assert "".join(row.problem_id for row in epoch_order(rows, 7, 1)) == "cdfeba"


def test_held_out_are_whole_problems_the_same_for_any_order():
    rows = make_rows(40)  # two samples a problem
    training, held_out = hold_out(rows, 10)
    assert len(held_out) == 4 and len(training) == 36
    assert not {row.problem_id for row in training} & {row.problem_id for row in held_out}
    assert hold_out(rows[::-1], 10)[1] == held_out
    assert len(hold_out(rows, 0.1)[1]) == 2, "at least one problem"
    with pytest.raises(BadInput, match="holds out 20 of 20 problems"):
        hold_out(rows, 99)
