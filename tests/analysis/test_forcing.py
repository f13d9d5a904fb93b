"""Along texts: packed as in training, whatever the parts, and going on where it stopped."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from mlx_ssd.analysis import forcing, store
from mlx_ssd.analysis.labels import RULE
from mlx_ssd.analysis.store import COLUMNS, LABELS, SIDES, Text
from mlx_ssd.analysis.terms import measure
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.errors import WorkFailed
from mlx_ssd.training import lora
from tests.training.tiny import Settings, make_rows, randomize_adapter, tiny_model

SAMPLING, EVALUATION = DecodingPolicy(1.6, 20, 0.8), DecodingPolicy(0.9, 20, 0.8)
EXACT = ("text", "position", "token")


def texts(count=9):
    rows = make_rows(count)
    return [
        Text(
            problem_id=row.problem_id,
            sample_index=row.sample_index,
            prompt_ids=row.prompt_ids,
            completion_ids=row.completion_ids,
        )
        for row in rows
    ]


def student(seed=0):
    model = tiny_model(seed=seed)
    lora.attach(model, Settings())
    randomize_adapter(model)
    model.eval()
    return model


def force(folder, found, load, arm="student", identity="x"):
    return forcing.force(found, folder, arm, load, SAMPLING, EVALUATION, identity)


def plain(base, model, found):
    """The terms of every text from a plain forward pass of it alone."""
    terms, columns = measure(SAMPLING, EVALUATION), []
    for text in found:
        tokens = mx.array([*text.prompt_ids, *text.completion_ids])[None]
        start = len(text.prompt_ids) - 1
        logits = [side(tokens)[0, start:-1] for side in (base, model)]
        chunk = terms(*logits, mx.array(np.array(text.completion_ids, np.int32)))
        columns.append({name: np.array(value) for name, value in chunk.items()})
    return columns


def joined(folder, arm="student"):
    parts = list(store.parts(folder, arm))
    return {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}, parts


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Several parts of several rows of several chunks."""
    monkeypatch.setattr(forcing, "PART_TOKENS", 30)
    monkeypatch.setattr(forcing, "ROW_TOKENS", 40)
    monkeypatch.setattr(forcing, "MOST_POSITIONS", 8)


@pytest.mark.parametrize("packed", [True, False])
def test_columns_are_those_of_each_text_alone(tmp_path, packed, monkeypatch):
    monkeypatch.setattr(forcing, "can_pack", lambda model: packed)
    found, model = texts(), student()
    pair = forcing.pair_of(model)
    assert pair.packed == packed and pair.headed
    force(tmp_path, found, lambda: pair)
    columns, parts = joined(tmp_path)
    assert len(parts) > 2
    wanted = plain(tiny_model(), model, found)
    lengths = [len(text.completion_ids) for text in found]
    np.testing.assert_array_equal(columns["text"], np.repeat(range(len(found)), lengths))
    np.testing.assert_array_equal(columns["token"], np.concatenate([text.completion_ids for text in found]))
    for name in COLUMNS.keys() - {"text", "position"}:
        expected = np.concatenate([chunk[name] for chunk in wanted])
        np.testing.assert_allclose(columns[name], expected, rtol=2e-3, atol=2e-4, err_msg=name)
    for side in SIDES:
        expected = np.array([chunk[f"{side}.mass_by_rank"].sum(axis=0) for chunk in wanted])
        np.testing.assert_allclose(columns[f"{side}.mass_by_rank"], expected, rtol=1e-3)
        by_text = columns[f"{side}.surviving_by_temperature"]
        np.testing.assert_array_equal(columns[f"{side}.surviving_by_temperature_and_label"].sum(axis=1), by_text)
    labels = RULE.labels(columns)
    for number in range(len(LABELS)):
        counted = np.array([c["base.entropy_by_temperature"] for c in wanted], dtype=object)
        chosen = np.concatenate(list(counted))[labels == number].sum(axis=0)
        summed = columns["base.entropy_by_temperature_and_label"][:, number].sum(axis=0)
        np.testing.assert_allclose(summed, chosen, rtol=1e-3, atol=1e-3)


def test_base_is_not_the_student_and_two_models_give_the_same(tmp_path):
    found, model = texts(4), student()
    force(tmp_path, found, lambda: forcing.pair_of(model))
    force(tmp_path, found, lambda: forcing.pair_of(model, tiny_model()), arm="full")
    (one, _), (other, _) = joined(tmp_path), joined(tmp_path, "full")
    assert np.abs(one["base.entropy"] - one["student.entropy"]).max() > 0.01
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_goes_on_where_it_stopped(tmp_path):
    found, loads = texts(), []

    def load():
        loads.append(1)
        return forcing.pair_of(student())

    first = force(tmp_path, found, load)
    before, _ = joined(tmp_path)
    assert first["forced"] == first["tokens"] == sum(len(text.completion_ids) for text in found)
    assert force(tmp_path, found, load)["forced"] == 0 and len(loads) == 1
    missing, damaged = store.part_files(tmp_path, "student")[1:3]
    missing.unlink()
    damaged.write_bytes(b"torn")
    assert 0 < force(tmp_path, found, load)["forced"] < first["tokens"]
    after, _ = joined(tmp_path)
    assert all(np.array_equal(after[name], values) for name, values in before.items())
    assert force(tmp_path, found, load, identity="another")["forced"] == first["tokens"]


def test_parts_of_more_texts_than_there_are_now_go(tmp_path):
    found = texts()
    force(tmp_path, found, lambda: forcing.pair_of(student()))
    force(tmp_path, found[:2], lambda: forcing.pair_of(student()), identity="fewer")
    assert sum(part.texts for part in store.parts(tmp_path, "student")) == 2


def test_weights_without_a_distribution_are_told(tmp_path):
    model = student()
    model.model.norm.weight = mx.full(model.model.norm.weight.shape, mx.nan)
    with pytest.raises(WorkFailed, match="no distribution at"):
        force(tmp_path, texts(2), lambda: forcing.pair_of(model))


def test_there_is_a_sign_of_life_at_every_batch_and_chunk(tmp_path, monkeypatch):
    events, found = [], texts()
    monkeypatch.setattr(forcing.heartbeat, "alive", lambda: events.append("alive"))
    pair = forcing.pair_of(student())

    def heard(side):
        return lambda batch: (events.append("forward"), side(batch))[1]

    force(tmp_path, found, lambda: replace(pair, base=heard(pair.base), student=heard(pair.student)))
    assert events.count("forward") > 4
    # Base and student of a batch are computed together.
    assert all("alive" in events[i : i + 3] for i, event in enumerate(events) if event == "forward")
