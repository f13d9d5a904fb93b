"""Comparisons of two arms, from grades made by hand."""

from pathlib import Path
from statistics import stdev

import pytest

from mlx_ssd.records import Comparison, Generation, Grade, Problem
from mlx_ssd.scoring import Outcome, compare, completion_tokens, passed, score
from mlx_ssd.sections import Evaluation

EVALUATION = Evaluation(pass_at=[1], bootstrap_resamples=500)
FORMATS = Path(__file__).parent.parent / "docs" / "formats.md"


def problems(count):
    test = {"stdin": "", "stdout": ""}
    return [Problem(id=f"p{i:03}", prompt="?", tests=[test]) for i in range(count)]


def grades(passes):
    """Grades of each problem's samples, from strings such as "10": the first passes, the second does not; "h" is a
    harness error."""
    verdict = {"1": "pass", "0": "wrong", "h": "harness_error"}
    return [
        Grade(problem_id=f"p{i:03}", sample_index=j, verdict=verdict[mark])
        for i, marks in enumerate(passes)
        for j, mark in enumerate(marks)
    ]


def generation(problem_id, index, tokens):
    return Generation(
        problem_id=problem_id,
        sample_index=index,
        prompt_ids=[1],
        completion_ids=[2] * tokens,
        finish_reason="stop",
        policy="d",
        seed=0,
        stream="eval",
        model="m",
        template="t",
    )


def outcome(arm, passes, lengths):
    asked, of_arm = problems(len(passes)), grades(passes)
    generations = [generation(g.problem_id, g.sample_index, lengths[int(g.problem_id[1:])]) for g in of_arm]
    of_score = score(arm, "s", "d", asked, generations, of_arm, EVALUATION)
    return Outcome(of_score, passed(asked, of_arm), completion_tokens(asked, generations))


def compared(before, after, lengths=None):
    """The comparison of two arms with these grades; the baseline's answers have 5 tokens, the arm's `lengths`."""
    constant = [5] * len(before)
    return compare(outcome("base", before, constant), outcome("student", after, lengths or constant), EVALUATION)


def test_mcnemar_of_one_sample_a_problem():
    found = compared(list("1110000000"), list("0110111110"))
    assert found.mcnemar.only_baseline == 1 and found.mcnemar.only_arm == 5
    assert found.mcnemar.p == pytest.approx(2 * 7 / 2**6)
    assert found.difference[1].mean == pytest.approx(0.4)


@pytest.mark.parametrize(
    "before, after",
    [
        (["10", "0", "1"], ["1", "0", "1"]),
        (["1", "0", "1"], ["11", "00", "10"]),
        (["11", "00"], ["11", "00"]),
        (["1", "h", "1"], ["1", "0", "1"]),
    ],
)
def test_no_mcnemar_where_some_problem_has_not_one_sample(before, after):
    found = compared(before, after)
    assert found.mcnemar is None
    assert "mcnemar" not in found.model_dump(mode="json", exclude_none=True)


def test_minimum_detectable_effect_of_a_comparison():
    found = compared(list("1110000000"), list("0110111110"))
    differences = [-1, 0, 0, 0, 1, 1, 1, 1, 1, 0]
    assert found.minimum_detectable_effect == {1: pytest.approx(2.8015852 * stdev(differences) / 10**0.5)}
    assert compared(["1"], ["0"]).minimum_detectable_effect is None
    assert compared(["10", "11"], ["10", "11"]).minimum_detectable_effect is None  # nothing varies


def test_a_gain_that_goes_with_length():
    """Where the arm writes 30 tokens more, it passes; where it writes as much, it does as before."""
    before, after = ["00"] * 20 + ["10"] * 20, ["11"] * 20 + ["01"] * 20
    found = compared(before, after, [35] * 20 + [5] * 20)
    assert found.difference[1].mean == pytest.approx(0.5)
    assert (found.length_controlled.baseline_tokens, found.length_controlled.arm_tokens) == (5, 20)
    assert found.length_controlled.difference.mean == pytest.approx(0, abs=1e-12)
    assert (found.baseline, found.arm, found.suite, found.decoding) == ("base", "student", "s", "d")


def test_length_cannot_be_told_from_the_rest_where_it_changes_alike():
    assert compared(["00", "10", "11"], ["11", "10", "11"], [9, 9, 9]).length_controlled is None
    assert compared(["0", "1", "0"], ["1", "1", "h"], [9, 5, 7]).length_controlled is None  # no pass@1 there


def test_tokens_are_a_mean_over_the_samples_of_each_problem_with_tests():
    untested = Problem(id="q", prompt="?")
    drawn = [generation("p000", 0, 4), generation("p000", 1, 7), generation("q", 0, 100), generation("p001", 0, 3)]
    assert completion_tokens([*problems(2), untested], drawn) == [5.5, 3.0]


def test_comparisons_of_older_runs_are_read():
    """As scores.json held them before there was anything beside the difference."""
    old = {"v": 1, "baseline": "base", "baseline_decoding": "d", "arm": "student", "decoding": "d", "suite": "s"}
    old["difference"] = {"1": {"mean": 0.1, "low": 0.0, "high": 0.2}}
    comparison = Comparison.model_validate(old)
    assert comparison.model_dump(mode="json", exclude_none=True) == old


def test_what_may_be_absent_from_a_comparison_is_documented():
    text = FORMATS.read_text(encoding="utf-8")
    optional = [name for name, field in Comparison.model_fields.items() if not field.is_required() and name != "v"]
    assert optional and all(f"`{name}`" in text for name in optional)
