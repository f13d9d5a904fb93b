"""Comparisons of two arms, from grades made by hand."""

from pathlib import Path
from statistics import stdev

import pytest

from mlx_ssd.recipe import Evaluation
from mlx_ssd.records import Comparison, Generation, Grade, Problem
from mlx_ssd.scoring import compare, score

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


def compared(before, after):
    """The comparison of two arms with these grades."""
    asked = problems(len(before))
    of_arms = [grades(before), grades(after)]
    scores = []
    for arm, of_arm in zip(("base", "student"), of_arms, strict=True):
        generations = [generation(grade.problem_id, grade.sample_index, 5) for grade in of_arm]
        scores.append(score(arm, "s", "d", asked, generations, of_arm, EVALUATION))
    return compare(*scores, asked, *of_arms, EVALUATION)


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
