import math

import pytest

from mlx_ssd.grading import same_output, same_value


@pytest.mark.parametrize(
    "result, expected, same",
    [
        (1, 1, True),
        (1, 1.0, True),
        (1.0, 1, True),
        (2**70, 2**70, True),
        (10**4000, 10**4000, True),
        (0.1 + 0.2, 0.3, False),
        (2**53 + 1, float(2**53), False),
        (-0.0, 0, True),
        (math.nan, math.nan, True),
        (math.inf, math.inf, True),
        (math.nan, 0, False),
        (0, math.nan, False),
        (True, True, True),
        (True, 1, False),
        (1, True, False),
        (False, 0, False),
        (0, False, False),
        (None, False, False),
        ("5", 5, False),
        (5, "5", False),
        ("ab ", "ab", False),
        ("", None, False),
        (None, None, True),
        (None, 0, False),
        ((1, 2), [1, 2], True),
        ([1, 2], (1, 2), True),
        ([(1, 2)], [[1, 2]], True),
        ([1.0, 2.0], [1, 2], True),
        ([1, 2], [2, 1], False),
        ([1], [1, 2], False),
        ([1, 2], [1], False),
        ([], [], True),
        ([], {}, False),
        ([True], [1], False),
        ("ab", ["a", "b"], False),
        (["a", "b"], "ab", False),
        ({"a": [1]}, {"a": [1.0]}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ([["a", 1]], {"a": 1}, False),
    ],
)
def test_values(result, expected, same):
    assert same_value(result, expected) is same


@pytest.mark.parametrize(
    "output, expected, same",
    [
        ("42\n", "42", True),
        ("42", "42\n\n", True),
        ("42  \n7\t\n", "42\n7\n", True),
        ("a\r\nb\r\n", "a\nb\n", True),
        ("a\nb", "a b", False),
        ("a", "a\nb", False),
        ("a\n\nb", "a\nb", False),
        ("\n\na", "a", True),
        ("a  b", "a b", True),
        ("Yes", "yes", False),
        ("", "", True),
        ("", "0", False),
        ("2.50", "2.5", True),
        ("1e3", "1000", True),
        ("x 1.0", "x 1", True),
        ("01", "1", True),
        ("+1", "1", True),
        ("0.30000000000000004", "0.3", False),
        ("1_000", "1000", False),
        ("nan", "NaN", False),
        ("1" * 30 + ".0", "1" * 30, True),
        ("9" * 30, "9" * 29 + "8", False),
        ("1e99999999999999999999", "1e99999999999999999998", False),
        ("１", "1", False),
    ],
)
def test_output(output, expected, same):
    assert same_output(output, expected) is same
