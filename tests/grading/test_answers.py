"""Numbers in answers, by the rules in the docstring; verdicts of the test kind {"answer": …}."""

import pytest

from mlx_ssd.grading import Limits, extract_answer, grade, grade_answers
from mlx_ssd.grading.answers import same_answer
from mlx_ssd.records import Problem


@pytest.mark.parametrize(
    "text, answer",
    [
        # 1: the last box that is not empty
        (r"So \boxed{7}, no, \boxed{42}. Check: 6 * 8 = 48", "42"),
        (r"\boxed{42} and then \boxed{}", "42"),
        (r"\boxed{\$1,250.00}", r"\$1,250.00"),
        (r"\boxed{x = 42 \text{ m}^2}", "42"),
        (r"\boxed{{18}}", "18"),
        (r"\boxed {-3}", "-3"),
        (r"\boxed{\text{18 dollars}}", "18"),
        (r"\boxed{no solution} 5", "no solution"),
        (r"\boxed{a\}b} 5", r"a\}b"),
        (r"#### 3 \boxed{4}", "4"),
        (r"it is 5: \boxed{6", "6"),  # cut off: rule 3
        # LaTeX's thousands, given with commas
        (r"\boxed{1{,}000}", "1,000"),
        (r"\boxed{1,\!000}", "1,000"),
        (r"\boxed{1\,000}", "1,000"),
        (r"\boxed{1{\,}000}", "1,000"),
        (r"\boxed{1\ 000}", "1,000"),
        (r"\boxed{1\;000}", "1,000"),
        (r"\boxed{x = \$1{,}250{,}000.50}", r"\$1,250,000.50"),
        (r"so it is 12,345\,678 in all", "12,345,678"),
        (r"#### 2{,}000", "2,000"),
        (r"\boxed{1{,}0000}", "1"),  # no group of three
        (r"\boxed{1\,5}", "1"),
        (r"\boxed{(1,\,200)}", "1"),  # a pair
        (r"\boxed{0.123\,456}", "0.123"),
        (r"\boxed{1}\,000", "1"),
        (r"from 100~200", "200"),  # a range
        # 2: the last line with ####
        ("16 - 3 = 13\n#### 18", "18"),
        ("#### 17\n#### $18 a day\n19", "$18"),
        ("#### \n20", "20"),
        # 3: the last number
        ("She has 3 apples, then 5.", "5"),
        ("**$1,234.50**", "$1,234.50"),
        ("10-4", "4"),
        ("a change of -4", "-4"),
        ("a change of \N{MINUS SIGN}4", "\N{MINUS SIGN}4"),
        ("half of it: .5", ".5"),
        ("50%", "50"),
        ("3,4,5", "5"),
        ("12,3456", "3456"),
        # thinking does not count
        ("<think>\n\\boxed{7}\n</think>\nIt is 8.", "8"),
        ("thought \\boxed{7}</think>\nIt is 8.", "8"),
        ("<think>\n7 and on and on", None),
        ("I do not know.", None),
        ("", None),
        ("٣", None),  # digits of other scripts
    ],
)
def test_extraction(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    "given, expected, same",
    [
        ("42", "42", True),
        ("42.00", "42", True),
        ("$1,234.50", "1234.5", True),
        (r"\$5", "5", True),
        ("-0", "0", True),
        ("042", "42", True),
        ("\N{MINUS SIGN}5", "-5", True),
        ("-$5", "-5", True),
        ("1" * 50 + ".0", "1" * 50, True),
        ("1" * 50, "1" * 49 + "2", False),
        ("0.3333", "0.333", False),
        ("4", "42", False),
        ("-42", "42", False),
        ("no solution", "42", False),
        ("1e3", "1000", False),
        ("x", "x", True),
    ],
)
def test_comparison(given, expected, same):
    assert same_answer(given, expected) is same
    assert same_answer(expected, given) is same


def test_an_answer_is_compared_and_never_run():
    limits = Limits(4, 4, 512, 256, 8)
    assert grade("42", None, [{"answer": "42"}], limits, None).verdict == "pass"
    wrong = grade("41", None, [{"answer": "42"}], limits, None)
    assert (wrong.verdict, wrong.failed_test, wrong.detail) == ("wrong", 0, 'got "41", expected "42"')


def test_thousands_as_latex_has_them_are_right():
    problem = Problem(id="x", prompt="How many?", tests=[{"answer": "1000"}])
    texts = [rf"\boxed{{1{separator}000}}" for separator in ("{,}", r",\!", r"\,", r"\ ", r"\;", ",", "")]
    graded = dict(grade_answers([(n, problem, t) for n, t in enumerate(texts)], Limits(4, 4, 512, 256, 8), 1))
    assert [verdict.verdict for verdict in graded.values()] == ["pass"] * len(texts)


def test_answers_of_a_model():
    problem = Problem(id="x", prompt="How many?", tests=[{"answer": "1,042"}])
    texts = ["so \\boxed{1042}", "#### 1041", "none", "```python\nprint(1042)\n```"]
    graded = dict(grade_answers([(n, problem, t) for n, t in enumerate(texts)], Limits(4, 4, 512, 256, 8), 1))
    assert [graded[n].verdict for n in range(4)] == ["pass", "wrong", "no_code", "pass"]
