from collections import Counter

import pytest

from mlx_ssd.training.batches import BatchPlan, best_fit, pack_rows, pad_rows

from .tiny import Row, make_rows

SHORT, LONG = Row("a", 0, [5, 6], [7, 8]), Row("b", 0, [9], [1, 2, 3, 4])


def plan(rows, rows_per_step=4, row_tokens=40, packed=True, seed=0):
    return BatchPlan(rows, rows_per_step=rows_per_step, row_tokens=row_tokens, packed=packed, seed=seed)


def of_length(*lengths):
    return [Row("p", i, [1], [2] * (length - 1)) for i, length in enumerate(lengths)]


def test_targets_are_exactly_the_completions_padded():
    batch = pad_rows([SHORT, LONG])
    assert batch.tokens.tolist() == [[5, 6, 7, 0], [9, 1, 2, 3]]
    assert batch.targets.tolist() == [7, 8, 1, 2, 3, 4]
    assert batch.positions.tolist() == [1, 2, 4, 5, 6, 7]
    assert batch.documents == ()


def test_targets_are_exactly_the_completions_packed():
    batch = pack_rows([SHORT, LONG])
    assert batch.tokens.tolist() == [[5, 6, 7, 9, 1, 2, 3]]
    assert batch.targets.tolist() == [7, 8, 1, 2, 3, 4]
    assert batch.positions.tolist() == [1, 2, 3, 4, 5, 6]
    assert batch.documents == (3, 4)


def test_target_count_has_no_pad_where_mlx_lm_counts_one_a_padded_row():
    mlx = pytest.importorskip("mlx.core")
    from mlx_lm.tuner.trainer import default_loss, iterate_batches

    rows = [row for row in make_rows(8) if len(row.completion_ids) > 1]
    completion_tokens = sum(len(row.completion_ids) for row in rows)
    assert len(pad_rows(rows).targets) == len(pack_rows(rows).targets) == completion_tokens

    dataset = [([*row.prompt_ids, *row.completion_ids], len(row.prompt_ids)) for row in rows]
    tokens, spans = next(iterate_batches(dataset, batch_size=len(rows), max_seq_length=64))
    _, counted = default_loss(lambda inputs: mlx.zeros((*inputs.shape, 96)), tokens, spans)
    assert counted.item() > completion_tokens  # when this fails, mlx-lm is mended: say so in batches.py


@pytest.mark.parametrize("packed", [True, False])
def test_an_epoch_trains_every_row_once_and_keeps_its_partial_step(packed):
    rows = make_rows(10)
    batches = plan(rows, packed=packed)
    assert batches.steps_per_epoch == 3
    steps = [batches.batches(0, step) for step in range(3)]
    counts = [sum(len(b.documents) if packed else len(b.tokens) for b in step) for step in steps]
    assert counts == [4, 4, 2]
    targets = Counter(token for step in steps for batch in step for token in batch.targets.tolist())
    assert targets == Counter(token for row in rows for token in row.completion_ids)


def test_batches_do_not_depend_on_the_order_of_the_rows():
    rows = make_rows(10)
    one, other = plan(rows).batches(1, 1), plan(rows[::-1]).batches(1, 1)
    assert [batch.tokens.tolist() for batch in one] == [batch.tokens.tolist() for batch in other]


def test_the_longest_goes_first_each_where_it_leaves_the_least_room():
    packs = best_fit(of_length(6, 3, 9, 4, 5), row_tokens=10)
    assert [[len(row.completion_ids) for row in pack] for pack in packs] == [[8, 2], [5, 4], [3]]


def test_a_pack_keeps_to_its_size_but_for_one_longer_sample():
    rows = make_rows(60)
    packs = best_fit(rows, row_tokens=25)
    assert sum(map(len, packs)) == 60
    used = [sum(pack_rows(pack).documents) for pack in packs]
    assert all(tokens <= 25 or len(pack) == 1 for tokens, pack in zip(used, packs, strict=True))
    assert any(tokens > 25 for tokens in used)
    fitting = sum(tokens for tokens in used if tokens <= 25)
    assert fitting / 25 / sum(tokens <= 25 for tokens in used) > 0.8


def test_padded_rows_are_of_like_length_and_within_the_size():
    batches = plan(of_length(10, 2, 9, 3, 8, 4), rows_per_step=6, row_tokens=20, packed=False).batches(0, 0)
    assert [batch.tokens.shape for batch in batches] == [(3, 3), (2, 8), (1, 9)]
