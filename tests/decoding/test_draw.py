"""The integer form and the draw: against the specification, and bit-equal between numpy, MLX and torch."""

import math
from itertools import product

import mlx.core as mx
import numpy as np
import pytest
from chi_square import chi_square_z

from mlx_ssd.decoding import draw as integer
from mlx_ssd.decoding.draw import NO_TOKEN, draw, weight_scale
from mlx_ssd.decoding.policy import ORDERS, DecodingPolicy, StagedPolicy
from mlx_ssd.decoding.policy_mlx import (
    make_row_sampler,
    make_sampler,
    pick_in_blocks,
    probabilities,
    support,
    top_candidates,
)
from mlx_ssd.decoding.rng import sample_key, uniform_u32

INF = float("inf")
RECIPES = [
    (0.7, 20, 0.8),
    (1.6, 20, 0.8),
    (1.1, 20, 1.0),
    (1.3, 0, 0.9),
    (0.9, 0, 1.0),
    (0.0, 20, 0.8),
    (1.0, 1, 0.5),
]
POLICIES = [DecodingPolicy(*recipe, order) for recipe, order in product(RECIPES, ORDERS)]
TWO_STAGE = [
    StagedPolicy(DecodingPolicy(1.6, 20, 0.8, order), evaluation)
    for order in ORDERS
    for evaluation in (
        DecodingPolicy(1.1, 10, 0.8),
        DecodingPolicy(0.7, 0, 0.9, "mlx_lm"),
        DecodingPolicy(0.0),
    )
]
TWO_STAGE += [
    StagedPolicy(POLICIES[4], POLICIES[4]),
    StagedPolicy(DecodingPolicy(1.2), DecodingPolicy(1, 5, 0.9, "llama_cpp")),
    StagedPolicy(DecodingPolicy(1.6, 20, 0.8), DecodingPolicy(1.0, 20, 0.8), DecodingPolicy(1.2, 10, 0.9)),
]


def name(policy):
    return policy.name()


def uniforms(rows):
    return uniform_u32(sample_key(0, "eval", "problem", 0), np.arange(rows))


def logits_of(rows, vocabulary, seed=0, grid=False, mean=0):
    """Like a model's: spread 2.2; on a bfloat16 grid, where equal logits abound, the more the larger the mean."""
    logits = (np.random.default_rng(seed).normal(size=(rows, vocabulary)) * 2.2 + mean).astype(np.float32)
    return np.array(mx.array(logits).astype(mx.bfloat16).astype(mx.float32)) if grid else logits


def special_rows():
    rows = np.zeros((8, 200), dtype=np.float32)
    rows[1] = np.repeat(np.arange(50), 4)  # ties everywhere, at the border of k = 20 too
    rows[2, 7] = 1e4  # one huge
    rows[3, ::2] = -INF
    rows[4, 1:] = -INF  # only one possible
    rows[5, ::2] = -0.0
    rows[6] = np.linspace(-3e38, 3e38, 200)  # the difference overflows
    rows[7, :] = -1e-40  # subnormal
    rows[7, 100:] = -2e-40
    return rows


def near_edge(policy, logits, tolerance=1e-6):
    """Whether a rank stands on top-p so nearly that rounding decides it."""
    for stage in policy.stages:
        if not stage.greedy and stage.top_p < 1:
            _, mass_above = stage.mass_above(np.asarray(logits, dtype=np.float64))
            # Masses equal to top-p by construction are decided alike by both forms; see test_policy.
            distance = np.abs(mass_above[1:] - stage.top_p)
            if ((1e-12 < distance) & (distance < tolerance)).any():
                return True
        logits = stage.decoded_logits(logits)
    return False


# -- weights ---------------------------------------------------------------------------------------


def test_weights_follow_the_exponential_and_fall_strictly_over_an_octave():
    steps = np.arange(2 * 2**20 + 1, dtype=np.float64) / 2**20  # two octaves, every representable exponent
    values = (-steps).astype(np.float32)
    found = integer.weights(np, values, np.float32(0), weight_scale(1 / math.log(2)))
    assert found[0] == 2**41 and found[2**20] == 2**40 and found[-1] == 2**39
    assert (np.diff(found) < 0).all()
    np.testing.assert_allclose(found / 2**41, 2.0**-steps, rtol=2e-8)


@pytest.mark.parametrize("temperature", [1e-5, 0.3, 1.0, 1.76, 100.0, 1e4])
def test_weights_at_any_temperature(temperature):
    values = -np.linspace(0, 25 * temperature, 10_000).astype(np.float32)
    with np.errstate(over="ignore"):
        found = integer.weights(np, values, np.float32(0), weight_scale(temperature)) / 2**41
        far = integer.weights(
            np, np.float32([-30 * temperature, -3e38, -INF]), np.float32(0), weight_scale(temperature)
        )
    expected = np.exp(values.astype(np.float64) / temperature)
    np.testing.assert_allclose(found, expected, rtol=3e-6, atol=2**-41)
    assert np.abs(found - expected).max() < 5e-7
    assert far.tolist() == [0, 0, 0]


def test_scaled_is_the_exact_floor():
    random = np.random.default_rng(0)
    fractions = np.append(random.integers(0, 2**32, 1000), [0, 1, 2**31, 2**32 - 1])
    totals = np.append(random.integers(0, 2**61, 1000), [2**61 - 1, 2**31 - 1, 2**31, 2**61 - 1])
    expected = [int(f) * int(t) >> 32 for f, t in zip(fractions, totals, strict=True)]
    assert integer.scaled(np, fractions, totals).tolist() == expected
    assert integer.scaled(mx, mx.array(fractions), mx.array(totals)).tolist() == expected


def test_order_keys_sort_by_value_then_id_and_come_back():
    values = np.float32([0.0, -0.0, 1e-45, -1e-45, 2, 2, -3, INF, -INF, np.nan, -np.nan, 3e38, -3e38])
    keys = integer.order_keys(np, values, np.arange(13, dtype=np.uint32))
    order = np.argsort(keys)
    assert order.tolist() == [9, 10, 7, 11, 4, 5, 2, 0, 1, 3, 6, 12, 8]
    back, ids = integer.from_keys(np, keys)
    np.testing.assert_array_equal(back, values)
    assert ids.tolist() == list(range(13))
    mlx_keys = integer.order_keys(mx, mx.array(values), mx.arange(13, dtype=mx.uint32))
    assert np.array(mlx_keys).tolist() == keys.tolist()


# -- candidates ------------------------------------------------------------------------------------


@pytest.mark.parametrize("vocabulary", [1, 19, 640, 2561, 2624, 5001])
@pytest.mark.parametrize("count", [1, 20, 5001])
def test_candidates_are_the_best_by_value_then_lower_id(vocabulary, count):
    count = min(count, vocabulary)
    logits = logits_of(16, vocabulary)
    logits[:8] = np.round(logits[:8])  # blocks whose maxima are equal
    logits[0] = 1
    logits[1, : vocabulary - 1] = -INF  # the padding must lose against real tokens at -inf
    values, ids = top_candidates(mx.array(logits), count)
    expected = np.argsort(-logits, axis=-1, kind="stable")[:, :count]
    np.testing.assert_array_equal(np.array(ids), expected)
    np.testing.assert_array_equal(np.array(values), np.take_along_axis(logits, expected, -1))


def test_half_precision_is_compared_and_weighed_in_float32():
    u32 = mx.array(uniforms(32))
    for dtype, policy in product((mx.bfloat16, mx.float16), POLICIES[:15]):
        logits = mx.array(logits_of(32, 3000)).astype(dtype)
        expected = make_sampler(policy)(logits.astype(mx.float32), u32)
        assert mx.array_equal(make_sampler(policy)(logits, u32), expected), policy


# -- the distribution ------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES + TWO_STAGE, ids=name)
def test_mlx_form_is_the_specification(policy):
    excused = 0
    for logits in (logits_of(40, 200), logits_of(40, 3001, grid=True), special_rows(), logits_of(3, 1)):
        for row, found in zip(logits, np.array(probabilities(policy, mx.array(logits))), strict=True):
            if near_edge(policy, row):
                excused += 1
                continue
            expected = policy.reference_probabilities(row)
            np.testing.assert_allclose(found, expected, atol=2e-6)
            if expected.min() == 0:
                np.testing.assert_array_equal(found > 0, expected > 1e-12)
    # A full-vocabulary tail puts tokens of 1e-4 round the edge; with top-k nearly no row stands on it.
    limit = 4 if policy.stages[0].top_k else 12
    assert excused <= limit


def test_exactly_k_survive_a_tie_at_the_border():
    logits = mx.array(np.round(logits_of(64, 3000)))
    for order in ORDERS:
        found = probabilities(DecodingPolicy(1.6, 20, 1.0, order), logits)
        assert ((found > 0).sum(axis=-1) == 20).all()


@pytest.mark.parametrize("policy", [*POLICIES[:15], TWO_STAGE[0]], ids=name)
@pytest.mark.parametrize("broken", [np.nan, -np.nan, INF])
def test_a_broken_row_is_told_and_spoils_no_other(policy, broken):
    for vocabulary in (30, 3000):
        logits = logits_of(4, vocabulary)
        clean = draw(policy, logits, uniforms(4))
        logits[1, vocabulary // 2] = broken
        logits[2] = -INF
        expected = [clean[0], NO_TOKEN, NO_TOKEN, clean[3]]
        assert draw(policy, logits, uniforms(4)).tolist() == expected
        assert make_sampler(policy)(mx.array(logits), mx.array(uniforms(4))).tolist() == expected
        found = np.array(probabilities(policy, mx.array(logits)))
        np.testing.assert_array_equal(np.isnan(found).all(axis=-1), [False, True, True, False])


# -- the draw --------------------------------------------------------------------------------------


def test_a_uniform_on_a_boundary_belongs_to_the_token_after_it():
    quarter = 2**30
    u32 = np.array([0, quarter - 1, quarter, 2 * quarter - 1, 2 * quarter, 4 * quarter - 1], dtype=np.uint32)
    shares = np.tile(np.array([1, 0, 1, 2, 0]) << 39, (6, 1))
    for xp in (np, mx):
        assert integer.pick(xp, xp.array(shares), xp.array(u32))[:, 0].tolist() == [0, 0, 2, 2, 3, 3]


@pytest.mark.parametrize("n", [200, 4096, 4097, 10_000])
def test_a_draw_by_blocks_is_the_draw(n):
    places = [0, 63, 64, 127, 128, 199, n - 2, n - 1]  # on both sides of the edges of blocks
    even = np.zeros((24, n), dtype=np.int64)
    even[:, places] = 2**41
    eighths = np.arange(8) * 2**29
    u32 = np.concatenate([eighths, eighths + 2**29 - 1, np.maximum(eighths - 1, 0)]).astype(np.uint32)
    random = np.random.default_rng(0).integers(0, 2**41, (24, n)) * (np.arange(n) % 3 == 0)
    for shares in (even, random):
        found = pick_in_blocks(mx.array(shares), mx.array(u32))
        np.testing.assert_array_equal(np.array(found), integer.pick(np, shares, u32))


@pytest.mark.parametrize("policy", [*POLICIES[3:6], POLICIES[9], POLICIES[12]], ids=name)
def test_numpy_and_mlx_draw_the_same_over_100_000_rows(policy):
    logits = np.concatenate([logits_of(50_000, 48), logits_of(50_000, 48, seed=1, grid=True)])
    u32 = uniforms(100_000)
    found = np.array(make_sampler(policy)(mx.array(logits), mx.array(u32)))
    np.testing.assert_array_equal(found, draw(policy, logits, u32))


@pytest.mark.parametrize("policy", POLICIES + TWO_STAGE, ids=name)
def test_numpy_and_mlx_draw_the_same_in_every_policy_and_corner(policy):
    for logits in (logits_of(64, 3001), logits_of(64, 3001, grid=True), special_rows(), logits_of(3, 1)):
        for shift in range(4):
            u32 = np.roll(uniforms(logits.shape[0]), shift)
            found = np.array(make_sampler(policy)(mx.array(logits), mx.array(u32)))
            np.testing.assert_array_equal(found, draw(policy, logits, u32))


def test_numpy_and_mlx_draw_the_same_over_a_real_vocabulary():
    for policy in (DecodingPolicy(1.6, 20, 0.8), DecodingPolicy(1.6, 20, 0.8, "mlx_lm"), DecodingPolicy(2.0)):
        logits = logits_of(4, 151_936, grid=True)
        found = np.array(make_sampler(policy)(mx.array(logits), mx.array(uniforms(4))))
        np.testing.assert_array_equal(found, draw(policy, logits, uniforms(4)))


def torch_draw(policies, logits, u32):
    torch = pytest.importorskip("torch")
    from mlx_ssd.torch_ref.policy import draw as drawn_in_torch

    return drawn_in_torch(torch.from_numpy(logits), policies, u32).numpy()


def test_mlx_and_torch_draw_the_same_a_million_times_on_k_numbers():
    ties = 0
    for part, u32 in enumerate(np.split(uniforms(1_000_000), 10)):
        grid = part % 2 == 1
        logits = logits_of(len(u32), 48, seed=part, grid=grid, mean=12)
        ranked = np.sort(logits, axis=-1)
        ties += (ranked[:, -20] == ranked[:, -21]).sum()
        # Top-p cuts the last ranks off; the grid is drawn once more where a tie at the border of k can tell.
        for policy in (DecodingPolicy(1.6, 20, 0.8), DecodingPolicy(1.6, 20))[: 1 + grid]:
            found = np.array(make_sampler(policy)(mx.array(logits), mx.array(u32)))
            np.testing.assert_array_equal(found, torch_draw(policy, logits, u32))
    assert ties > 100_000, "a fifth of the rows on the grid"


def test_mlx_and_torch_draw_the_same_over_a_real_vocabulary():
    whole, mass_of_whole = DecodingPolicy(1.0), DecodingPolicy(1.6, 20, 0.8, "mlx_lm")
    ranked_whole = DecodingPolicy(1.6, 0, 0.8, "mlx_lm")  # sorts, which is slow: for a quarter of the rows
    for part, u32 in enumerate(np.split(uniforms(256), 8)):
        logits = logits_of(len(u32), 151_936, seed=part, grid=part % 2 == 1)
        for policy in (whole, mass_of_whole, ranked_whole)[: 3 if part < 2 else 2]:
            found = np.array(make_sampler(policy)(mx.array(logits), mx.array(u32)))
            np.testing.assert_array_equal(found, torch_draw(policy, logits, u32))


@pytest.mark.parametrize("policy", POLICIES + TWO_STAGE, ids=name)
def test_numpy_and_torch_draw_the_same_in_every_policy_and_corner(policy):
    for logits in (logits_of(64, 3001), logits_of(64, 3001, grid=True), special_rows(), logits_of(3, 1)):
        for broken in (np.nan, -np.nan, INF):
            u32 = np.roll(uniforms(logits.shape[0]), 1)
            np.testing.assert_array_equal(torch_draw(policy, logits, u32), draw(policy, logits, u32))
            logits[-1, logits.shape[-1] // 2], logits[-2] = broken, -INF
            np.testing.assert_array_equal(torch_draw(policy, logits, u32), draw(policy, logits, u32))


@pytest.mark.parametrize("vocabulary", [48, 3001, 5001])
def test_torch_draws_rows_of_different_policies_as_each_alone(vocabulary):
    policies = (POLICIES + TWO_STAGE) * 2
    np.random.default_rng(0).shuffle(policies)
    logits, u32 = logits_of(len(policies), vocabulary, grid=True), uniforms(len(policies))
    logits[5], logits[7] = np.nan, -INF
    expected = [draw(policy, logits[i : i + 1], u32[i : i + 1])[0] for i, policy in enumerate(policies)]
    assert torch_draw(policies, logits, u32).tolist() == expected


def test_half_precision_is_weighed_in_float32_by_torch_too():
    torch = pytest.importorskip("torch")
    from mlx_ssd.torch_ref.policy import draw as drawn_in_torch

    logits, u32 = torch.from_numpy(logits_of(32, 3000)), uniforms(32)
    for dtype, policy in product((torch.bfloat16, torch.float16), POLICIES[:6]):
        rounded = logits.to(dtype)
        found = drawn_in_torch(rounded, policy, u32).numpy()
        np.testing.assert_array_equal(found, draw(policy, rounded.float().numpy(), u32))


@pytest.mark.parametrize("policy", POLICIES + TWO_STAGE, ids=name)
def test_probabilities_in_torch_are_those_in_mlx(policy):
    torch = pytest.importorskip("torch")
    from mlx_ssd.torch_ref.policy import probabilities as probabilities_in_torch

    for logits in (logits_of(40, 200), special_rows()):
        logits[3] = np.nan
        found = probabilities_in_torch(policy, torch.from_numpy(logits)).numpy()
        expected = np.array(probabilities(policy, mx.array(logits)))
        np.testing.assert_allclose(found, expected, atol=1e-7)
        np.testing.assert_array_equal(found > 0, expected > 0)


@pytest.mark.parametrize("policy", [*POLICIES[:6], *POLICIES[12:15], *TWO_STAGE[:2]], ids=name)
def test_draws_follow_the_specification(policy):
    logits = logits_of(1, 40, seed=11)
    rows = 100_000
    tokens = make_sampler(policy)(mx.broadcast_to(mx.array(logits), (rows, 40)), mx.array(uniforms(rows)))
    counts = np.bincount(np.array(tokens), minlength=40)
    assert chi_square_z(counts, policy.reference_probabilities(logits[0])) < 4


@pytest.mark.parametrize("policy", POLICIES + TWO_STAGE[:2], ids=name)
def test_a_row_is_the_same_alone_and_in_any_batch(policy):
    for vocabulary in (640, 3001):
        logits, u32 = mx.array(logits_of(32, vocabulary, grid=True)), mx.array(uniforms(32))
        sampler = make_sampler(policy)
        together = sampler(logits, u32).tolist()
        assert [sampler(logits[i : i + 1], u32[i : i + 1]).item() for i in range(32)] == together
        assert sum((sampler(logits[i : i + 3], u32[i : i + 3]).tolist() for i in range(0, 32, 3)), []) == together


def test_the_global_generator_is_neither_used_nor_moved():
    logits, u32 = mx.array(logits_of(8, 3000)), mx.array(uniforms(8))
    for policy in POLICIES:
        mx.random.seed(1)
        state = [part.tolist() for part in mx.random.state]
        first = make_sampler(policy)(logits, u32).tolist()
        assert [part.tolist() for part in mx.random.state] == state
        mx.random.seed(2)
        assert make_sampler(policy)(logits, u32).tolist() == first


def test_a_compiled_sampler_draws_the_same():
    # One policy: each kernel costs a second of compiler time.
    sampler = make_sampler(DecodingPolicy(1.6, 20))
    logits, u32 = mx.array(logits_of(32, 640)), mx.array(uniforms(32))
    assert mx.compile(sampler)(logits, u32).tolist() == sampler(logits, u32).tolist()


@pytest.mark.parametrize("vocabulary", [48, 3001])
def test_rows_of_different_policies_are_drawn_as_each_alone(vocabulary):
    policies = (POLICIES + TWO_STAGE) * 4
    np.random.default_rng(0).shuffle(policies)
    logits, u32 = logits_of(len(policies), vocabulary, grid=True), uniforms(len(policies))
    logits[5], logits[7] = np.nan, -INF
    expected = [draw(policy, logits[i : i + 1], u32[i : i + 1])[0] for i, policy in enumerate(policies)]
    found = make_row_sampler(policies, vocabulary)(mx.array(logits), mx.array(u32))
    assert found.tolist() == expected
    # One kind of work, from one stage and two, with several top-k.
    alike = [i for i, p in enumerate(policies) if 0 < p.stages[0].top_k and p.stages[0].order != "mlx_lm"]
    alike_policies = [policies[i] for i in alike]
    found = make_row_sampler(alike_policies, vocabulary)(mx.array(logits[alike]), mx.array(u32[alike]))
    assert found.tolist() == [expected[i] for i in alike]


def test_the_extreme_uniforms_draw_the_first_and_the_last_of_the_support():
    for policy in POLICIES[:15]:
        logits = logits_of(2, 300)
        logits[1] = logits[0]
        first, last = draw(policy, logits, np.array([0, 2**32 - 1], dtype=np.uint32))
        ids, weights, _ = support(policy, mx.array(logits))
        drawable = np.array(ids[0])[np.array(weights[0]) > 0]
        assert (first, last) == (drawable[0], drawable[-1])
