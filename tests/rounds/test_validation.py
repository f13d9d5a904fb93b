"""What is measured of a round, on made-up grades and answers."""

import pytest

from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.errors import WorkFailed
from mlx_ssd.records import Generation
from mlx_ssd.validation import differences, diversity, measured

COLD, WARM, HOT = (DecodingPolicy(t, top_k=20, top_p=0.8) for t in (0.6, 0.9, 1.2))
NONE, HALF, ALL = (4, 0), (4, 2), (4, 4)


def answer(problem, index, *ids):
    how = {"policy": "p", "seed": 0, "stream": "eval", "model": "m", "template": "t", "finish_reason": "stop"}
    return Generation(problem_id=problem, sample_index=index, prompt_ids=[1], completion_ids=list(ids), **how)


def test_a_round_counts_at_its_best_temperature_of_equals_the_first():
    tried = [(COLD, [HALF, NONE]), (WARM, [ALL, NONE]), (HOT, [HALF, HALF])]
    best, found = measured(tried, 200)
    assert best == 1 and found["decoding"]["temperature"] == 0.9 and found["counts"] == [[4, 4], [4, 0]]
    assert [point["pass@1"] for point in found["tried"]] == [0.25, 0.5, 0.5]
    assert found["pass_at"]["1"]["mean"] == 0.5
    hot = measured(tried[::-1], 200)[1]  # of the same two the other comes first
    assert hot["decoding"]["temperature"] == 1.2
    assert hot["pass_at"]["4"]["mean"] == 1.0  # each problem has a right one among four
    assert found["pass_at"]["4"]["mean"] == 0.5


def test_one_sample_a_problem_has_no_pass_at_more_and_no_diversity():
    _, found = measured([(COLD, [(1, 1), (1, 0)])], 200)
    assert set(found["pass_at"]) == {"1"}
    assert diversity(found["pass_at"], [answer("a", 0, 5), answer("b", 0, 5)]) == {}


def test_a_problem_without_a_graded_sample_is_no_crash():
    with pytest.raises(WorkFailed, match=f"validation at {WARM.name()}: no sample of some problem could be graded;"):
        measured([(COLD, [HALF, ALL]), (WARM, [HALF, (0, 0)])], 200)


def test_diversity_is_the_gap_and_the_share_of_different_answers():
    pass_at = {"1": {"mean": 0.5}, "4": {"mean": 0.875}}
    answers = [answer("a", 0, 5, 6), answer("a", 1, 5, 6), answer("b", 0, 5, 6), answer("b", 1, 5, 7)]
    assert diversity(pass_at, answers) == {"pass_gap": 0.375, "distinct": pytest.approx(0.75)}


def test_differences_are_this_round_less_each_before_paired():
    earlier = [{"round": n, "counts": counts} for n, counts in enumerate([[NONE, HALF], [HALF, ALL]])]
    found = differences(earlier, {"round": 2, "counts": [HALF, ALL]}, 500)
    assert found["0"] == {"mean": 0.5, "low": 0.5, "high": 0.5}  # half a point more on each: paired, no spread
    assert found["1"]["mean"] == 0.0 and set(found) == {"0", "1"}
