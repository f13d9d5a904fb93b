"""Every column against its definition in float64, and the paper's identities on what MLX gives."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_ssd.analysis.labels import IDENTITIES
from mlx_ssd.analysis.store import COLUMNS, RANKS, SIDES, SUMS
from mlx_ssd.analysis.terms import measure
from mlx_ssd.decoding.policy import DecodingPolicy
from tests.analysis.reference import columns

SAMPLING = [
    DecodingPolicy(temperature, top_k, top_p)
    for temperature in (0.7, 1.0, 1.6)
    for top_k in (0, 20)
    for top_p in (0.8, 1.0)
]
EVALUATION = DecodingPolicy(0.9, 20, 0.8)
RESIDUAL = 1e-5
EXACT = ("token", "support", "rank", "surviving", "top_ids", "surviving_by_temperature")


def logits(rows, vocabulary, seed=0, spread=3.0):
    """Base and student, alike but not the same; the student is surer in some places and less sure in others."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(rows, vocabulary)) * spread * rng.uniform(0.3, 2.5, size=(rows, 1))
    student = base * rng.uniform(0.6, 1.5, size=(rows, 1)) + rng.normal(size=base.shape)
    tokens = np.where(rng.uniform(size=rows) < 0.7, base.argmax(axis=1), rng.integers(vocabulary, size=rows))
    return base.astype(np.float32), student.astype(np.float32), tokens.astype(np.int32)


def measured(base, student, tokens, sampling, evaluation=EVALUATION):
    found = measure(sampling, evaluation)(mx.array(base), mx.array(student), mx.array(tokens))
    mx.eval(found)
    return {name: np.array(value) for name, value in found.items()}


def assert_as_defined(base, student, tokens, sampling, evaluation=EVALUATION):
    found = measured(base, student, tokens, sampling, evaluation)
    assert not found.pop("broken").any()
    wanted = [columns(*row, sampling, evaluation) for row in zip(base, student, tokens, strict=True)]
    assert found.keys() == wanted[0].keys()
    for name, values in found.items():
        expected = np.array([row[name] for row in wanted])
        if name.split(".")[-1] in EXACT:
            np.testing.assert_array_equal(values, expected, err_msg=name)
        else:
            np.testing.assert_allclose(values, expected, rtol=2e-5, atol=5e-6, err_msg=name)


@pytest.mark.parametrize("sampling", SAMPLING, ids=DecodingPolicy.name)
def test_every_column_is_what_its_formula_says(sampling):
    assert_as_defined(*logits(24, 300), sampling)


MANY = [DecodingPolicy(0.6), DecodingPolicy(1.0, 0, 0.9), DecodingPolicy(1.3, 70, 0.95)]


@pytest.mark.parametrize("evaluation", MANY, ids=DecodingPolicy.name)
def test_evaluation_may_keep_many_tokens(evaluation):
    assert_as_defined(*logits(6, 300, seed=1), SAMPLING[-2], evaluation)


@pytest.mark.parametrize("order", ["mlx_lm", "llama_cpp"])
def test_other_orders_of_decoding(order):
    assert_as_defined(*logits(6, 300, seed=2), DecodingPolicy(1.4, 20, 0.8, order), DecodingPolicy(0.8, 20, 0.9, order))


def test_ties_go_to_the_lower_id():
    base, student, tokens = logits(12, 200, seed=3)
    base, student = np.round(base), np.round(student)
    tokens[:6] = [np.flatnonzero(row == row.max())[-1] for row in base[:6]]
    assert_as_defined(base, student, tokens, DecodingPolicy(1.6, 20, 1.0))


@pytest.mark.parametrize("top_k", [0, 20])
def test_tokens_may_be_ruled_out(top_k):
    base, student, tokens = logits(8, 300, seed=4)
    ruled_out = np.argsort(base, axis=1)[:, :200]
    np.put_along_axis(base, ruled_out, -np.inf, axis=1)
    np.put_along_axis(student, ruled_out[:, :150], -np.inf, axis=1)
    tokens[0] = ruled_out[0, 0]
    assert_as_defined(base, student, tokens, DecodingPolicy(1.6, top_k, 1.0))


def test_a_vocabulary_smaller_than_what_is_kept_of_it():
    base, student, tokens = logits(4, 7, seed=5)
    found = measured(base, student, tokens, DecodingPolicy(1.6, 20, 0.8))
    assert (found["base.top_ids"][:, 7:] == -1).all() and (found["base.top_probabilities"][:, 7:] == 0).all()
    assert found["base.mass_by_rank"].shape == (4, RANKS)
    np.testing.assert_allclose(found["base.mass_by_rank"][:, 7:], 1, atol=1e-6)


LARGE = 50_001  # tokens, as real vocabularies have; not of whole blocks


@pytest.mark.parametrize(
    ("sampling", "vocabulary"),
    [*((sampling, 704) for sampling in SAMPLING), (SAMPLING[1], LARGE), (SAMPLING[-2], LARGE)],
)
def test_identities_hold_in_float32(sampling, vocabulary):
    found = measured(*logits(64 if vocabulary == 704 else 2, vocabulary, seed=6), sampling)
    for name, residual in IDENTITIES.items():
        worst = np.abs(residual({key: value.astype(np.float64) for key, value in found.items()})).max()
        assert worst <= RESIDUAL, name


@pytest.mark.parametrize("vocabulary", [704, LARGE])
def test_identities_hold_where_one_token_is_nearly_certain(vocabulary):
    """A sum that holds a 1 must not lose the many small numbers beside it: the largest of these is half an ulp of 1."""
    rng = np.random.default_rng(9)
    base = np.log(rng.uniform(1e-8, 4e-8, size=(4, vocabulary)))
    base[:, 3] = 0
    student = base + rng.normal(size=base.shape) * 0.1
    base, student = base.astype(np.float32), student.astype(np.float32)
    found = measured(base, student, np.full(4, 3, np.int32), DecodingPolicy(1.6, 20, 0.8))
    tail = 1 - found["base.kept_mass"].astype(np.float64)
    exact = np.exp(base.astype(np.float64))
    np.testing.assert_allclose(tail, 1 - exact[:, 3] / exact.sum(axis=1), rtol=0.01, atol=1e-7)
    for name, residual in IDENTITIES.items():
        worst = np.abs(residual({key: value.astype(np.float64) for key, value in found.items()})).max()
        assert worst <= 3e-6, name


def test_the_identities_can_be_broken():
    """A wrong kept mass, loss or entropy would be seen."""
    found = {name: value.astype(np.float64) for name, value in measured(*logits(8, 300), SAMPLING[-1]).items()}
    for name in ("base.gate", "student.head", "base.tail", "student.loss", "base.compression", "student.reshaping",
                 "base.anchor", "target_entropy", "gain.compression", "gain.reshaping", "gain.ideal"):  # fmt: skip
        wrong = found | {name: found[name] + 1e-3}
        assert any(np.abs(residual(wrong)).max() > RESIDUAL for residual in IDENTITIES.values()), name


def test_an_ideal_student_gains_what_the_proposition_says():
    sampling = DecodingPolicy(1.6, 20, 0.8)
    base, _, tokens = logits(16, 300, seed=7)
    ideal = np.stack([sampling.decoded_logits(row) for row in base]).astype(np.float32)
    found = measured(base, ideal, tokens, sampling)
    np.testing.assert_allclose(found["gain.student"], found["gain.ideal"], atol=2e-5)
    np.testing.assert_allclose(found["student.kept_mass"], 1)
    np.testing.assert_allclose(found["student.compression"], 0, atol=1e-6)
    np.testing.assert_allclose(found["student.tail"], 0)


def test_nothing_kept_by_the_student_is_still_a_number():
    base, student, tokens = logits(3, 300, seed=8)
    support = [DecodingPolicy(1.6, 20, 0.8).support(row) for row in base]
    for row, ids in enumerate(support):
        student[row, ids] -= 150
    found = measured(base, student, tokens, DecodingPolicy(1.6, 20, 0.8))
    assert (found["student.kept_mass"] == 0).all()
    assert np.isfinite(found["student.compression"]).all() and (found["student.compression"] > 100).all()
    parts = found["student.compression"] + found["student.conditional"]
    np.testing.assert_allclose(found["student.loss"], parts, rtol=1e-6)


def test_greedy_decoding_has_no_gain_and_greedy_sampling_one_token():
    found = measured(*logits(4, 300), DecodingPolicy(0.0), DecodingPolicy(0.0))
    assert np.isnan(found["gain.ideal"]).all()
    assert (found["support"] == 1).all() and (found["base.surviving"] == 1).all()
    np.testing.assert_allclose(found["target_entropy"], 0)
    np.testing.assert_allclose(found["student.loss"], found["student.compression"], atol=1e-6)


@pytest.mark.parametrize("side", SIDES)
def test_logits_without_a_distribution_are_told(side):
    base, student, tokens = logits(4, 300)
    (base if side == "base" else student)[2, 5] = np.nan
    np.testing.assert_array_equal(measured(base, student, tokens, SAMPLING[-1])["broken"], [False, False, True, False])


def test_all_columns_are_there():
    found = measured(*logits(2, 300), SAMPLING[-1])
    assert COLUMNS.keys() - {"text", "position"} <= found.keys()
    assert {name for name in SUMS if "." in name and not name.startswith("text.")} <= found.keys()
