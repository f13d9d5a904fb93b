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

    def __post_init__(self) -> None:
        """A program's words can hold what no file can: half of a surrogate pair."""
        object.__setattr__(self, "detail", self.detail.encode("utf-8", "backslashreplace").decode())


def short(value: object) -> str:
    """A value in at most a hundred characters."""
    text = "a value too long or too deep to show"
    for spell in (json.dumps, repr):
        try:
            text = spell(value)
            break
        except (TypeError, ValueError, RecursionError):  # not of JSON; an integer too long for decimal digits
            pass
    return text if len(text) <= 100 else text[:100] + "…"
