"""The checks on made logits: what is drawn as it should be passes, what is drawn otherwise does not, and is named."""

import numpy as np
import pytest

from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.errors import BadInput
from mlx_ssd.sampling.server.checks import MARGIN, Drawn, check_decoding, check_model

PAPER = DecodingPolicy(1.6, 20, 0.8)
VOCABULARY, TOKENS = 60, 300


class Made:
    """In place of a model: logits of its own for every answer."""

    def __init__(self, seed=0, noise=0.0):
        random = np.random.default_rng(seed)
        self.rows = random.normal(0, 2.5, (TOKENS, VOCABULARY)).astype(np.float32)
        self.theirs = self.rows + random.normal(0, noise, self.rows.shape) if noise else self.rows

    def logits(self, drawn):
        return self.rows[: len(drawn.ids)]

    def draw(self, probabilities, seed=0):
        random = np.random.default_rng(seed)
        ids = [int(random.choice(VOCABULARY, p=probabilities(row.astype(np.float64)))) for row in self.theirs]
        return [Drawn([1], ids, None)]




@pytest.mark.parametrize(
    "policy", [PAPER, DecodingPolicy(0.8, 0, 0.9, "mlx_lm"), DecodingPolicy(1.0), DecodingPolicy(0.0)]
)
def test_a_server_that_draws_as_it_should_passes(policy):
    for seed in range(3):
        found = check_decoding(made := Made(seed), made.draw(policy.reference_probabilities, seed), policy)
        assert found["decoding_tokens"] == TOKENS and abs(found["decoding_z"]) < 4
        assert found.get("rival_log10_e", 0) < 3


def test_a_server_whose_kernels_round_otherwise_passes_too():
    for seed in range(3):
        made = Made(seed, noise=0.03)
        assert abs(check_decoding(made, made.draw(PAPER.reference_probabilities, seed), PAPER)["decoding_z"]) < 4


@pytest.mark.parametrize(
    "draws, said",
    [
        (DecodingPolicy(1.6, 20, 0.8, "mlx_lm"), "one in order mlx_lm"),
        (DecodingPolicy(1.6, 20, 0.8, "llama_cpp"), "one in order llama_cpp"),
        (DecodingPolicy(1.0, 20, 0.8), "one at temperature 1"),
        (DecodingPolicy(0.7, 20, 0.8), "one at temperature 0.7"),
        (DecodingPolicy(1.6, 5, 0.8), "standard errors likelier|times likelier"),
        (DecodingPolicy(2.4, 20, 0.8), "standard errors less likely|cannot be drawn"),
        (DecodingPolicy(1.6, 0, 0.8), "cannot be drawn where it drew it"),
        (DecodingPolicy(1.6, 20, 1.0), "cannot be drawn where it drew it"),
        (DecodingPolicy(1.6), "cannot be drawn where it drew it"),
    ],
)
def test_a_server_that_draws_otherwise_is_refused(draws, said):
    for seed in range(2):
        made = Made(seed)
        with pytest.raises(BadInput, match=said):
            check_decoding(made, made.draw(draws.reference_probabilities, seed), PAPER)


def test_draws_that_no_rival_explains_are_refused_by_their_likelihood():
    made, plain = Made(), DecodingPolicy(1.0)
    with pytest.raises(BadInput, match="standard errors less likely than they should be"):
        check_decoding(made, made.draw(DecodingPolicy(2.5).reference_probabilities), plain)


def test_top_p_of_all_tokens_is_told_from_top_p_of_the_top_k():
    narrow = DecodingPolicy(1.6, 8, 0.8)  # where the two differ more than in so small a vocabulary with 20

    def theirs(row):
        wide = DecodingPolicy(1.6, 0, 0.8).support(row)[:8]
        weights = np.zeros_like(row)
        weights[wide] = np.exp((row[wide] - row.max()) / 1.6)
        return weights / weights.sum()

    made = Made()
    with pytest.raises(BadInput, match="cannot be drawn|takes top-p of all tokens"):
        check_decoding(made, made.draw(theirs), narrow)


def test_a_token_just_below_the_support_is_let_pass_and_one_far_below_is_not():
    made, three = Made(), DecodingPolicy(1.6, 3)
    for gap, passes in ((MARGIN - 0.1, True), (MARGIN + 0.1, False)):
        made.rows[0] = -20.0
        made.rows[0, :4] = 5, 4, 3, 3 - gap
        answers = [Drawn([1], [3], None)]
        if passes:
            check_decoding(made, answers, three)
        else:
            with pytest.raises(BadInput, match="token 3 cannot be drawn where it drew it, its logit is 0.6 below"):
                check_decoding(made, answers, three)


def test_a_greedy_server_must_give_the_likeliest():
    made = Made()
    greedy = [Drawn([1], made.rows.argmax(-1).tolist(), None)]
    check_decoding(made, greedy, DecodingPolicy(0.0))
    with pytest.raises(BadInput, match="cannot be drawn"):
        check_decoding(made, made.draw(DecodingPolicy(1.0).reference_probabilities), DecodingPolicy(0.0))


def logprobs(made, ids, change=0.0):
    rows = made.rows.astype(np.float64)
    return (rows[np.arange(len(ids)), ids] - np.log(np.exp(rows).sum(-1)) + change)[: len(ids)].tolist()


def test_log_probabilities_are_compared_on_average_and_the_largest_is_named():
    made = Made()
    ids = made.draw(DecodingPolicy(1.0).reference_probabilities)[0].ids
    found = check_model(made, [Drawn([1], ids, logprobs(made, ids, 0.01))], 0.05)
    assert found["mean_difference"] == pytest.approx(0.01, rel=1e-3) and found["tokens"] == TOKENS
    one = logprobs(made, ids)
    one[7] -= 1.0  # above the tolerance, the average is not
    assert check_model(made, [Drawn([1], ids, one)], 0.05)["largest_difference"] == pytest.approx(1.0)
    one = logprobs(made, ids, 0.04)
    one[7] = -30.0
    with pytest.raises(BadInput, match=rf"at most by .* \(-30 there, {logprobs(made, ids)[7]:.4g} here\)"):
        check_model(made, [Drawn([1], ids, one)], 0.05)
    with pytest.raises(BadInput, match="differ by 0.06 nats on average"):
        check_model(made, [Drawn([1], ids, logprobs(made, ids, -0.06))], 0.05)
