"""Verdicts on LiveCodeBench's tests, worked out by hand. Where a comment says so, the paper's released grader errs."""

import json

import pytest

from mlx_ssd.grading import Limits, ProcessSandbox, grade, with_preamble
from tests.problems.contests import function_row, packed, row, stdin

LIMITS = Limits(wall_seconds=6, cpu_seconds=6, memory_mb=512, output_kb=256, processes=8)
SANDBOX = ProcessSandbox()


def verdict(problem, code: str) -> tuple[str, int | None]:
    given = grade(with_preamble(code, problem.preamble), problem.entry_point, problem.tests, LIMITS, SANDBOX)
    return given.verdict, given.failed_test


class TestGrading:
    SUM = "n = int(input())\nprint(sum(map(int, input().split())))"

    @pytest.mark.parametrize(
        "code, expected",
        [
            (SUM, ("pass", None)),
            ("n = int(input())\nprint(*(int(x) + 1 for x in input().split()))", ("wrong", 0)),  # 2 tokens, not 1
            ("n = int(input())\nprint(sum(list(map(int, input().split()))[:2]))", ("wrong", 1)),  # 1 + 2, not 6
            ("print(int(input()) // 0)", ("error", 0)),
            # Programs that the released grader fails: the buffer's second line, a global, stdout by name, exit().
            ("import sys\nr = sys.stdin.buffer.readline\nr()\nprint(sum(map(int, r().split())))", ("pass", None)),
            ("t = 0\ndef go():\n    global t\n    t += sum(map(int, input().split()))\ninput()\ngo()\nprint(t)",
             ("pass", None)),
            ("from sys import stdout\ninput()\nstdout.write(str(sum(map(int, input().split()))))", ("pass", None)),
            (SUM + "\nexit()", ("pass", None)),
            # Names that LiveCodeBench has at hand, and what must stand before them.
            ("input()\nprint(reduce(add, map(int, sys.stdin.readline().split())))", ("pass", None)),
            ("from __future__ import annotations\ninput()\nprint(sum(map(int, input().split())))", ("pass", None)),
        ],
    )  # fmt: skip
    def test_standard_input(self, read, code, expected):
        public, private = stdin(("2\n4 5\n", "9\n")), stdin(("3\n1 2 3\n", "6\n"), ("1\n-1\n", "-1\n"))
        rows = row("sum", public_test_cases=json.dumps(public), private_test_cases=packed(private))
        assert verdict(*read(rows), code) == expected

    def test_output_is_compared_as_decimals_without_tolerance(self, read):
        (problem,) = read(row("half", public_test_cases=json.dumps(stdin(("1", "0.5\n"))), private_test_cases="[]"))
        assert verdict(problem, "print('0.50 ')") == ("pass", None)
        assert verdict(problem, "print(0.5000001)") == ("wrong", 0)

    @pytest.mark.parametrize(
        "code, expected",
        [
            ("class Solution:\n    def f(self, a: List[int]) -> int:\n        return sum(a)", ("pass", None)),
            ("def f(a): return sum(a)", ("pass", None)),
            ("from __future__ import annotations\nclass Solution:\n    def f(self, a: List[int]): return sum(a)",
             ("pass", None)),
            ("class Solution:\n    def f(self, a: List[int]) -> int:\n        return sum(set(a))", ("wrong", 1)),
            ("class Solution:\n    def f(self, a): return str(sum(a))", ("wrong", 0)),  # released: '3' is 3
            ("class Solution:\n    def f(self, a): return sum(a) + 0 * a[0]", ("error", 2)),
            ("class Solution:\n    def g(self, a): return sum(a)", ("error", 0)),
            ("class Solution:\n    def f(self, a): return a[0] + self.f(a[1:]) if a else 0", ("pass", None)),
        ],
    )  # fmt: skip
    def test_functional(self, read, code, expected):
        (problem,) = read(function_row("sum", ("[1, 2]", "3"), ("[2, 2, -1, 0]", "3"), ("[]", "0")))
        assert verdict(problem, code) == expected

    @pytest.mark.parametrize(
        "given, code, right, wrong",
        [
            # What the released parser spoils: an equals sign, a comma beside it, true and null, escapes.
            ('"a=b"', "def f(s): return s", '"a=b"', '"b"'),
            ('"x,y=1"', "def f(s): return s.split(',')", '["x", "y=1"]', '["x"]'),
            ("true", "def f(x): return x is True", "true", "false"),
            ("null", "def f(x): return x is None", "true", "false"),
            (r'"a\"b\\c\u00e9\n"', "def f(s): return len(s)", "7", "12"),
            ('{"k": [1]}\n"s"', "def f(d, s): return d['k'] + [s]", '[1, "s"]', '["s", 1]'),
            # What the released comparison spoils: numbers by spelling, tuples within, texts and numbers, white space.
            ("2", "def f(n): return [n / 1, n]", "[2, 2.0]", "[2, 2.5]"),
            ("2", "def f(n): return [(1, n)]", "[[1, 2]]", "[[1], 2]"),
            ("5", "def f(n): return str(n)", '"5"', "5"),
            ('"ab "', "def f(s): return s", '"ab "', '"ab"'),
            ("3", "def f(n): return 0.1 * n", "0.30000000000000004", "0.3"),  # both the same: no tolerance
        ],
    )
    def test_what_the_released_grader_gets_wrong(self, read, given, code, right, wrong):
        (problem,) = read(function_row("x", (given, right), (given, wrong)))
        assert verdict(problem, code) == ("wrong", 1)

    def test_recursion_as_deep_as_livecodebench_allows(self, read):
        (problem,) = read(function_row("deep", ("20000", "20000")))
        assert verdict(problem, "def f(n): return n and 1 + f(n - 1)") == ("pass", None)
