"""Problems, answers to them and a sandbox that runs these harmless programs at once, for tests of what is around it.

It is not asked for canaries, which are known programs of another kind: tests/grading does that.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from mlx_ssd.grading import Outcome, texts
from mlx_ssd.suites import grading

PROBLEMS, SAMPLES = 30, 2


class StandIn:
    """Runs programs in this process. Each is noted in `log`, by its first line, before it runs."""

    def __init__(self, log: Path, seconds: float = 0.0):
        self.log, self.seconds = log, seconds

    def call(self, code, entry_point, calls, limits):
        with open(self.log, "a") as log:
            log.write(code.split("\n", 1)[0] + "\n")
        time.sleep(self.seconds)
        space: dict = {}
        for args in calls:
            try:
                exec(code, space)
                yield Outcome("ok", space[entry_point](*args))
            except Exception as error:
                yield Outcome("error", detail=str(error))

    def runs(self, code, stdins, limits):
        for _ in stdins:
            printed: list[str] = []
            exec(code, {"print": lambda value, printed=printed: printed.append(f"{value}\n")})
            yield Outcome("ok", "".join(printed))

    def level(self) -> str:
        return "limits"

    def mechanisms(self) -> dict:
        return {"stand-in": True}

    def ran(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@contextlib.contextmanager
def in_place(sandbox: StandIn) -> Iterator[StandIn]:
    """Everything is graded by it."""
    with (
        mock.patch.object(texts, "check_canaries", lambda *_: None),
        mock.patch.object(texts, "ProcessSandbox", lambda: sandbox),
        mock.patch.object(grading, "ProcessSandbox", lambda: sandbox),
    ):
        yield sandbox


def program(problem: int, sample: int, arm: str = "") -> str:
    """Right, wrong or raising, so that each problem and arm has another score."""
    body = ["return x * x", "return x", "raise ValueError(x)"][(problem * 7 + sample * (2 + len(arm)) + len(arm)) % 3]
    return f"# p{problem:02} {sample} {arm}\ndef f(x):\n    {body}\n"


def answer(problem: int, sample: int, arm: str = "") -> str:
    if (problem + sample) % 9 == 8:
        return "I do not know."
    return f"So:\n```python\n{program(problem, sample, arm)}```\n"


def problem_lines(count: int = PROBLEMS) -> str:
    return "".join(
        json.dumps(
            {
                "id": f"p{i:02}",
                "prompt": f"Square, {i}.",
                "entry_point": "f",
                "tests": [{"args": [i + 2], "expected": (i + 2) ** 2}],
                "difficulty": "easy" if i % 2 else "hard",
            }
        )
        + "\n"
        for i in range(count)
    )


def answer_lines(count: int = PROBLEMS, samples: int = SAMPLES) -> str:
    return "".join(
        json.dumps({"problem_id": f"p{i:02}", "completion": answer(i, j)}) + "\n"
        for j in range(samples)
        for i in range(count)
    )


def write(folder: Path) -> None:
    """problems.jsonl and answers.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "problems.jsonl").write_text(problem_lines())
    (folder / "answers.jsonl").write_text(answer_lines())
