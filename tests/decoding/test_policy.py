"""The specification: by hand, against Transformers and mlx-lm themselves, and on the paper's toy."""

import numpy as np
import pytest
from chi_square import chi_square_z

from mlx_ssd.analysis.toy import Toy
from mlx_ssd.decoding.policy import ORDERS, DecodingPolicy, StagedPolicy
from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.sections import STAGED

INF = float("inf")


def probabilities(logits, *settings, **named):
    return DecodingPolicy(*settings, **named).reference_probabilities(np.array(logits, dtype=np.float64))


def log(*masses):
    with np.errstate(divide="ignore"):
        return np.log(np.array(masses))


# -- by hand ---------------------------------------------------------------------------------------


def test_orders_by_hand():
    # At T = 0.5 masses square: .4 .3 .2 .1 -> 16 9 4 1 of 30.
    logits = log(0.4, 0.3, 0.2, 0.1)
    # Tempered, of the three best 16 9 4 of 29: 16/29 < .6, 25/29 >= .6: two stay.
    np.testing.assert_allclose(probabilities(logits, 0.5, 3, 0.6), [16 / 25, 9 / 25, 0, 0])
    # Untempered, over everything: .4 < .75, .7 < .75, .9 >= .75: three stay, of which top-k 2 leaves two.
    np.testing.assert_allclose(
        probabilities(logits, 0.5, 0, 0.75, order="mlx_lm"), [16 / 29, 9 / 29, 4 / 29, 0]
    )
    np.testing.assert_allclose(probabilities(logits, 0.5, 2, 0.75, order="mlx_lm"), [16 / 25, 9 / 25, 0, 0])
    # Untempered, over the three best 4 3 2 of 9: 7/9 >= .75: two stay.
    np.testing.assert_allclose(
        probabilities(logits, 0.5, 3, 0.75, order="llama_cpp"), [16 / 25, 9 / 25, 0, 0]
    )


def test_without_truncation_the_orders_agree():
    logits = np.random.default_rng(0).normal(size=50)
    expected = np.exp(logits / 1.3) / np.exp(logits / 1.3).sum()
    for order in ORDERS:
        np.testing.assert_allclose(probabilities(logits, 1.3, order=order), expected, rtol=1e-12)


def test_ties_at_the_border_go_to_the_lower_id_and_exactly_k_survive():
    for order in ORDERS:
        np.testing.assert_allclose(
            probabilities([1, 3, 1, 1, 3, 1], 1.0, 3, order=order) > 0, [1, 1, 0, 0, 1, 0]
        )
    np.testing.assert_allclose(probabilities([0.0, -0.0, 0.0], 1.0, 2), [0.5, 0.5, 0])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("equal_tokens", "top_p", "kept"),
    [(5, 0.8, 4), (10, 0.8, 8), (10, 0.3, 3), (10, 0.7, 7), (4, 0.5, 2), (3, 0.7, 3)],
)
def test_equal_tokens_that_reach_top_p_exactly_have_reached_it(order, equal_tokens, top_p, kept):
    result = probabilities(np.zeros(equal_tokens), 0.7, 0, top_p, order=order)
    np.testing.assert_allclose(result, [1 / kept] * kept + [0] * (equal_tokens - kept))


@pytest.mark.parametrize("order", ORDERS)
def test_corners(order):
    np.testing.assert_allclose(probabilities([1, -INF, 2, -INF], 1.0, 4, order=order)[[1, 3]], 0)
    np.testing.assert_allclose(probabilities([0, 1e4, 0], 1.6, 20, 0.8, order=order), [0, 1, 0])
    np.testing.assert_allclose(probabilities([0.3, 0.2], 1.0, 1, 1e-12, order=order), [1, 0])
    np.testing.assert_allclose(probabilities([0.3, 0.2], 1.0, 0, 1e-12, order=order), [1, 0])
    np.testing.assert_allclose(probabilities([-7.0], 0.9, 20, 0.8, order=order), [1])
    np.testing.assert_allclose(probabilities([1, 4, 4, 2], 0.0, 3, 0.9, order=order), [0, 1, 0, 0])
    np.testing.assert_allclose(probabilities([0, 1e-6], 9e-6, order=order), [0, 1])
    assert probabilities([0, 1e-6], 1.1e-5, order=order).min() > 0.4
    wide, exact = (probabilities([1, 5, 2, 3], 1.6, k, 0.8, order=order) for k in (99, 4))
    np.testing.assert_array_equal(wide, exact)


@pytest.mark.parametrize("bad", [[0, np.nan], [INF, 0], [-INF, -INF]])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_with_no_distribution_are_an_error(bad, temperature):
    with pytest.raises(WorkFailed, match="logits"):
        probabilities(bad, temperature, 1)
    with pytest.raises(WorkFailed, match="logits"):
        policy = DecodingPolicy(temperature)
        StagedPolicy(policy, policy).reference_probabilities(np.array(bad))


@pytest.mark.parametrize(
    "settings",
    [
        (-0.1,),
        (INF,),
        (np.nan,),
        (101,),
        ("1",),
        (True,),
        (1, -1),
        (1, 2.0),
        (1, True),
        (1, 0, 0),
        (1, 0, 1.1),
    ]
    + [(1, 0, np.nan), (1, 0, 1.0, "vllm")],
)
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(BadInput, match="give"):
        DecodingPolicy(*settings)


def test_a_student_of_a_student_is_a_further_stage():
    """By hand: p1 = the first policy's distribution, p2 = the second's of log p1, and so on; zeros stay zeros."""
    stages = DecodingPolicy(1.6, 20, 0.9), DecodingPolicy(0.8, 0, 0.7), DecodingPolicy(1.3, 5, 0.95, "mlx_lm")
    policy, rng = StagedPolicy(*stages), np.random.default_rng(3)
    for _ in range(50):
        logits = 2.5 * rng.normal(size=60)
        expected = logits
        for stage in stages:
            with np.errstate(divide="ignore"):
                expected = np.log(stage.reference_probabilities(expected))
        np.testing.assert_allclose(policy.reference_probabilities(logits), np.exp(expected), atol=1e-12)
        assert set(policy.support(logits)) == set(np.flatnonzero(np.isfinite(expected)))


def test_names():
    assert DecodingPolicy(0.9, 20, 0.8).name() == "t0.9-k20-p0.8"
    assert DecodingPolicy(1, 0, 1).name() == DecodingPolicy(1.0).name() == "t1-k0-p1"
    assert DecodingPolicy(1.6, 20, 0.95, "mlx_lm").name() == "t1.6-k20-p0.95-mlx_lm"
    assert DecodingPolicy(0, 20, 0.8).name() == "greedy"
    two_stage = StagedPolicy(DecodingPolicy(1.6, 20, 0.8), DecodingPolicy(1.1, 20, 0.8))
    assert two_stage.name() == "two-stage-t1.6-k20-p0.8-then-t1.1-k20-p0.8"
    hot, cool = DecodingPolicy(1.6, 20, 0.8), DecodingPolicy(1.0, 20, 0.8)
    assert StagedPolicy(hot, cool, cool).name() == "3-stage-t1.6-k20-p0.8-then-t1-k20-p0.8-x2"
    many = StagedPolicy(*[hot] * 30, cool, hot)
    assert many.name() == "32-stage-t1.6-k20-p0.8-x30-then-t1-k20-p0.8-then-t1.6-k20-p0.8"
    for policy in (two_stage, StagedPolicy(hot, cool, cool), many):
        assert STAGED.fullmatch(policy.kind) and policy.name().startswith(policy.kind)
    assert not STAGED.fullmatch("hot-stage") and not STAGED.fullmatch("student")
    with pytest.raises(ValueError, match="a single one"):
        StagedPolicy(hot)


# -- against the libraries that decode -------------------------------------------------------------


def near_edge(logits, top_p, measure_temperature, top_k, tolerance=1e-6):
    """Whether a float32 cumulative sum may put some rank on the other side of top-p."""
    tempered = np.sort(logits / measure_temperature)[::-1][: top_k or None]
    mass = np.exp(tempered - tempered[0])
    return np.abs(np.cumsum(mass) / mass.sum() - top_p).min() < tolerance


@pytest.mark.parametrize(
    "settings", [(0.7, 20, 0.8), (1.6, 20, 0.8), (1.1, 0, 0.95), (2.0, 5, 1.0), (0.6, 20, 0.95)]
)
def test_temperature_first_is_transformers(settings):
    torch = pytest.importorskip("torch")
    warpers = pytest.importorskip("transformers.generation.logits_process")
    temperature, top_k, top_p = settings
    chain = [warpers.TemperatureLogitsWarper(temperature)]
    chain += [warpers.TopKLogitsWarper(top_k)] if top_k else []
    chain += [warpers.TopPLogitsWarper(top_p)] if top_p < 1 else []
    logits = (np.random.default_rng(1).normal(size=(200, 300)) * 2.2).astype(np.float32)
    scores = torch.from_numpy(logits)
    for warper in chain:
        scores = warper(None, scores)
    excused = 0
    for row, theirs in zip(logits, torch.softmax(scores, -1).numpy(), strict=True):
        assert len(set(row)) == len(row), "ties: Transformers keeps more than k"
        if top_p < 1 and near_edge(row, top_p, temperature, top_k):
            excused += 1
            continue
        np.testing.assert_allclose(probabilities(row, *settings), theirs, atol=1e-6)
    assert excused <= 2


@pytest.mark.parametrize(
    "settings", [(0.7, 20, 0.8), (1.6, 20, 0.8), (1.6, 3, 0.3), (0.7, 0, 0.9), (1.6, 20, 1.0)]
)
def test_mlx_lm_order_is_mlx_lm(settings):
    import mlx.core as mx

    sample_utils = pytest.importorskip("mlx_lm.sample_utils")
    temperature, top_k, top_p = settings
    logits = (np.random.default_rng(2).normal(size=(200, 300)) * 2.2).astype(np.float32)
    scores = mx.array(logits)
    scores = scores - mx.logsumexp(scores, axis=-1, keepdims=True)
    if top_p < 1:
        scores = sample_utils.apply_top_p(scores, top_p)
    if top_k:
        scores = sample_utils.apply_top_k(scores, top_k)
    excused = 0
    for row, theirs in zip(logits, np.array(mx.softmax(scores * (1 / temperature), axis=-1)), strict=True):
        assert len(set(row)) == len(row)
        if top_p < 1 and near_edge(row, top_p, 1.0, 0):
            excused += 1
            continue
        np.testing.assert_allclose(probabilities(row, *settings, order="mlx_lm"), theirs, atol=1e-6)
    assert excused <= 2


def test_mlx_lm_make_sampler_still_chains_in_that_order():
    import mlx.core as mx

    sample_utils = pytest.importorskip("mlx_lm.sample_utils")
    logits = log(*np.array([30, 20, 15, 10, 8, 7, 5, 3, 2]) / 100).astype(np.float32)
    mx.random.seed(3)
    sampler = sample_utils.make_sampler(temp=1.6, top_p=0.6, top_k=4)
    tokens = np.array(sampler(mx.broadcast_to(mx.array(logits), (20_000, 9))))
    counts = np.bincount(tokens, minlength=9)
    expected = {order: probabilities(logits, 1.6, 4, 0.6, order=order) for order in ORDERS}
    assert chi_square_z(counts, expected["mlx_lm"]) < 4
    assert [(p > 0).sum() for p in expected.values()] == [2, 3, 2], "the test tells the orders apart"


# -- two stages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_two_stages_are_the_ideal_student_decoded(order):
    random = np.random.default_rng(4)
    train = DecodingPolicy(1.6, 20, 0.8, order)
    decoding = [DecodingPolicy(1.1, 5, 0.8, order), DecodingPolicy(0.7, 0, 0.9, order), DecodingPolicy(0)]
    for evaluation in decoding:
        logits = random.normal(size=100) * 3
        with np.errstate(divide="ignore"):
            student = np.log(train.reference_probabilities(logits))
        two_stage = StagedPolicy(train, evaluation).reference_probabilities(logits)
        np.testing.assert_allclose(two_stage, evaluation.reference_probabilities(student), atol=1e-12)


def test_two_stage_temperatures_multiply_inside_the_support():
    logits = np.random.default_rng(5).normal(size=100) * 3
    train = DecodingPolicy(1.6, 20, 0.8)
    two_stage = StagedPolicy(train, DecodingPolicy(1.1)).reference_probabilities(logits)
    inside = train.reference_probabilities(logits) > 0
    expected = np.where(inside, np.exp(logits / 1.76), 0)
    np.testing.assert_allclose(two_stage, expected / expected.sum(), rtol=1e-10)


def test_toy_machine_of_the_paper():
    toy = Toy()
    bits = [-(p * np.log2(p)).sum() for p in (toy.lock, toy.fork)]
    np.testing.assert_allclose(bits, [1.61, 2.81], atol=0.005)
    train = DecodingPolicy(0.9, 0, 0.85)

    teacher, temperature = toy.best(lambda t: DecodingPolicy(t, 0, 0.80))
    assert teacher == pytest.approx(8.33, abs=0.02) and temperature == pytest.approx(0.639, abs=0.003)

    two_stage, temperature = toy.best(lambda t: StagedPolicy(train, DecodingPolicy(t, 0, 0.80)))
    assert two_stage == pytest.approx(13.77, abs=0.02) and temperature == pytest.approx(2.091, abs=0.005)

    single_truncation, _ = toy.best(lambda t: StagedPolicy(train, DecodingPolicy(t)))
    assert single_truncation == pytest.approx(6.55, abs=0.02)

    student = Toy()
    for state in ("root", "fork", "lock"):
        setattr(student, state, train.reference_probabilities(np.log(getattr(toy, state))))
    np.testing.assert_allclose(student.fork[:5], [0.169, 0.344, 0.159, 0.164, 0.164], atol=0.005)
    with np.errstate(divide="ignore"):
        ideal_student, _ = student.best(lambda t: DecodingPolicy(t, 0, 0.80))
    assert ideal_student == pytest.approx(two_stage, abs=1e-9)


@pytest.mark.parametrize(
    ("top_p", "gap"), [(0.65, 3.96), (0.70, 3.08), (0.75, 4.18), (0.80, 5.44), (0.85, 2.03), (0.90, 1.35)]
)
def test_toy_gaps_over_top_p(top_p, gap):
    toy, train = Toy(), DecodingPolicy(0.9, 0, 0.85)
    teacher, _ = toy.best(lambda t: DecodingPolicy(t, 0, top_p), step=0.002)
    two_stage, _ = toy.best(lambda t: StagedPolicy(train, DecodingPolicy(t, 0, top_p)), step=0.002)
    assert two_stage - teacher == pytest.approx(gap, abs=0.02)
