"""Problem sets: where prompts come from, and the tests that grade their answers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mlx_ssd import assets
from mlx_ssd.errors import BadInput
from mlx_ssd.recipe import ProblemSource
from mlx_ssd.records import Problem, parse_line


def problem_file(source: ProblemSource, role: str) -> Path:
    """The JSONL file that `source` means for `role` ("train", "validation" or "test")."""
    if source.source == "embedded":
        return assets.problems_path(role)
    return Path(source.path or "").expanduser()


def read_problems(source: ProblemSource, role: str) -> list[Problem]:
    """The problems in file order, at most `source.limit`. Raises BadInput for a missing or empty file,
    a line that is not a problem, or an id given twice."""
    path = problem_file(source, role)
    if not path.is_file():
        raise BadInput(f"problems.{role}.path: {path} does not exist")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines would cut at U+2028 too
    except UnicodeDecodeError:
        raise BadInput(f"problems.{role}.path: {path} is not a text file in UTF-8") from None
    problems = [
        parse_line(Problem, line, f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not problems:
        raise BadInput(f"problems.{role}.path: {path} holds no problem")
    twice = [id_ for id_, count in Counter(p.id for p in problems).items() if count > 1]
    if twice:
        raise BadInput(f"problems.{role}.path: {path} has id {twice[0]!r} more than once; ids must be unique")
    return problems[: source.limit]
