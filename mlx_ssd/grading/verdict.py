"""What grading says of a program."""

import json
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Verdict:
    """`failed_test` is the index of the first test not passed (0 where the program does not load), None for
    pass, no_code and harness_error; of a check it is the assertion's number among all of the problem.
    `no_code`: there was nothing to grade. `harness_error` is never a failure of the program: it was not graded."""

    verdict: Literal["pass", "wrong", "error", "timeout", "memory", "no_code", "harness_error"]
    failed_test: int | None = None
    detail: str = ""


def short(value: object) -> str:
    """A value in at most a hundred characters."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):  # not of JSON, or an integer too long for decimal digits
        try:
            text = repr(value)
        except ValueError:
            text = "a very long number"
    return text if len(text) <= 100 else text[:100] + "…"
