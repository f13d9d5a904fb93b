import random
from collections import Counter

import numpy as np
import pytest

from mlx_ssd.errors import BadInput
from mlx_ssd.training.batches import BatchPlan, epoch_order, pad_rows

from .tiny import Row, make_rows


def plan(rows, rows_per_step=4, rows_per_micro_batch=3, max_length=64, seed=0):
    return BatchPlan(
        rows,
        rows_per_step=rows_per_step,
        rows_per_micro_batch=rows_per_micro_batch,
        max_length=max_length,
        seed=seed,
    )


def test_targets_are_exactly_the_completions():
    short, long = Row("a", 0, [5, 6], [7, 8]), Row("b", 0, [9], [1, 2, 3, 4])
    batch = pad_rows([short, long])
    assert batch.tokens.tolist() == [[5, 6, 7, 0], [9, 1, 2, 3]]
    assert batch.targets.tolist() == [7, 8, 1, 2, 3, 4]
    assert batch.positions.tolist() == [1, 2, 4, 5, 6, 7]


def test_target_count_has_no_pad_where_mlx_lm_counts_one_a_padded_row():
    mlx = pytest.importorskip("mlx.core")
    from mlx_lm.tuner.trainer import default_loss, iterate_batches

    rows = [row for row in make_rows(8) if len(row.completion_ids) > 1]
    completion_tokens = sum(len(row.completion_ids) for row in rows)
    assert len(pad_rows(rows).targets) == completion_tokens

    dataset = [([*row.prompt_ids, *row.completion_ids], len(row.prompt_ids)) for row in rows]
    tokens, spans = next(iterate_batches(dataset, batch_size=len(rows), max_seq_length=64))
    _, counted = default_loss(lambda inputs: mlx.zeros((*inputs.shape, 96)), tokens, spans)
    assert counted.item() > completion_tokens  # when this fails, mlx-lm is mended: say so in batches.py


def test_an_epoch_trains_every_row_once_and_keeps_its_partial_step():
    rows = make_rows(10)
    batches = plan(rows)
    assert batches.steps_per_epoch == 3
    sizes = [[len(batch.tokens) for batch in batches.batches(0, step)] for step in range(3)]
    assert sizes == [[3, 1], [3, 1], [2]]
    targets = Counter()
    for step in range(3):
        for batch in batches.batches(0, step):
            targets.update(batch.targets.tolist())
    assert targets == Counter(token for row in rows for token in row.completion_ids)


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


def test_rows_of_a_step_are_grouped_by_length():
    rows = [Row("p", i, [1], [2] * length) for i, length in enumerate([9, 1, 8, 2, 7, 3])]
    batches = plan(rows, rows_per_step=6, rows_per_micro_batch=2).batches(0, 0)
    assert [batch.tokens.shape[1] for batch in batches] == [2, 7, 9]


@pytest.mark.parametrize(
    "row, words",
    [
        (Row("p/1", 4, [1] * 60, [2] * 5), ["65 tokens", "max_length 64"]),
        (Row("p/1", 4, [], [2]), ["empty prompt or completion"]),
        (Row("p/1", 4, [1], []), ["empty prompt or completion"]),
    ],
)
def test_unusable_rows_are_named(row, words):
    with pytest.raises(BadInput) as error:
        plan([*make_rows(3), row])
    for word in ["problem p/1", "sample 4", *words]:
        assert word in str(error.value)


def test_no_rows_are_refused():
    with pytest.raises(BadInput, match="no training rows"):
        plan([])


def test_a_row_of_exactly_max_length_is_trained_whole():
    [batch] = plan([Row("p", 0, [1] * 60, [2] * 4)]).batches(0, 0)
    assert batch.tokens.shape == (1, 63)
    assert np.array_equal(batch.positions, [59, 60, 61, 62])
