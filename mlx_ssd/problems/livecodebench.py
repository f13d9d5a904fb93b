"""LiveCodeBench (arXiv 2403.07974): contest problems with their tests, in the windows that the paper reports.

Read from the JSONL files of livecodebench/code_generation_lite, never through its loader script. A row, all strings:
    question_title, question_content, platform, question_id, contest_id, contest_date (ISO), starter_code, difficulty,
    public_test_cases, private_test_cases (contest_tests.py), metadata (JSON; func_name where a function is called)
A file holds what one release added, so a window needs only the files of its months.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mlx_ssd.errors import BadInput
from mlx_ssd.problems.contest_tests import read_tests
from mlx_ssd.problems.hub_files import from_hub, missing_bytes
from mlx_ssd.records import Problem
from mlx_ssd.sections import ProblemSource
from mlx_ssd.storage import hash_json, hash_path

REPOSITORY = "livecodebench/code_generation_lite"
REVISION = "0fe84c3912ea0c4d4a78037083943e8f0c4dd505"  # all six files; without one in the recipe
COLUMNS = (
    "question_content", "question_id", "contest_date", "starter_code", "difficulty",
    "public_test_cases", "private_test_cases", "metadata",
)  # fmt: skip


@dataclass(frozen=True)
class Release:
    """The contests from the first month to the last, both inside, and how many problems the paper has in them."""

    first: str
    last: str
    files: tuple[str, ...]
    problems: int


# v5 goes to the end of February: the sixth release has 323 problems from August to January and 51 more in February,
# and only both together are the paper's 374. So the two windows share February, and those 51 problems.
RELEASES = {
    "v6": Release("2025-02", "2025-05", ("test6.jsonl",), 131),
    "v5": Release("2024-08", "2025-02", ("test3.jsonl", "test4.jsonl", "test5.jsonl", "test6.jsonl"), 374),
}

# The user's turn of LiveCodeBench for chat models (lcb_runner/prompts/code_generation.py at 28fef95), to the letter.
FUNCTION = """\
### Question:
{statement}

### Format: You will use the following starter code to write the solution to the problem and enclose your code within \
delimiters.
```python
{starter}
```

### Answer: (use the provided format with backticks)

"""
PROGRAM = """\
### Question:
{statement}

### Format: Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the \
sample inputs). Enclose your code within delimiters as follows. Ensure that when the python program runs, it reads the \
inputs, runs the algorithm and writes output to STDOUT.
```python
# YOUR CODE HERE
```

### Answer: (use the provided format with backticks)

"""

# LiveCodeBench grades every program with these names at hand and with deep recursion: starter code says List[int]
# and imports nothing. The order matters: builtins come after what hides them, such as pow of math.
_STARRED = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools",
    "functools", "operator", "io", "sys", "json", "builtins", "typing",
)  # fmt: skip
_NAMED = [name for name in _STARRED if name not in ("builtins", "typing")]
PREAMBLE = "; ".join(
    [*(f"from {name} import *" for name in _STARRED), f"import {', '.join(_NAMED)}", "sys.setrecursionlimit(50000)"]
)


def identity(source: ProblemSource, role: str) -> str:
    """`livecodebench/code_generation_lite@COMMIT`, or a hash of the contents of a local copy's files."""
    if source.path is None:
        return f"{REPOSITORY}@{source.revision or REVISION}"
    return hash_json([hash_path(file) for file in _local_files(source.path, source.release, role)])


def prompt(statement: str, starter_code: str) -> str:
    """The user's turn: the statement, and starter code to complete or the words for a program of stdin and stdout."""
    if starter_code:
        return FUNCTION.format(statement=statement, starter=starter_code)
    return PROGRAM.format(statement=statement)


def select(source: ProblemSource, role: str) -> tuple[list[Problem], dict[str, int | str]]:
    """The problems of `source.release`, in the order of the files, and the account of all rows.

    Only the tests of problems that are chosen are unpacked. All rows are read, so that the problems of the window can
    be counted; the account has a `note`, one sentence, where they are not as many as in the paper. Raises BadInput
    for data that is missing or malformed, or where no problem is left.
    """
    release = RELEASES[source.release]
    count: Counter[str] = Counter()
    problems: list[Problem] = []
    seen: set[str] = set()
    for where, row in _rows(source, role):
        count["rows"] += 1
        if not release.first <= _month(row, where) <= release.last:
            count["outside_window"] += 1
            continue
        name = row["question_id"]
        if name in seen:
            raise BadInput(f"{where}: problem {name!r} is there twice; give each file once")
        seen.add(name)
        if source.difficulty not in (None, row["difficulty"]):
            count["other_difficulty"] += 1
        elif count["skipped"] < source.skip:
            count["skipped"] += 1
        elif len(problems) == source.limit:
            count["beyond_limit"] += 1
        else:
            problems.append(_problem(row, f"{where}: problem {name!r}"))
    names = ("rows", "outside_window", "other_difficulty", "skipped", "beyond_limit")
    if not problems:
        left_out = ", ".join(f"{count[name]} {name}" for name in names[1:] if count[name])
        raise BadInput(f"problems.{role}: livecodebench {source.release} leaves no problem ({left_out or 'no rows'})")
    account: dict[str, int | str] = {
        "source": source.source,
        "release": source.release,
        **{name: count[name] for name in names},
        "kept": len(problems),
    }
    if len(seen) != release.problems:
        account["note"] = (
            f"LiveCodeBench {source.release}, contests of {release.first} to {release.last}: {len(seen)} problems "
            f"were found where the paper has {release.problems}, so scores are not those of its set"
        )
    return problems, account


def download_bytes(source: ProblemSource, role: str) -> int:
    """Bytes of the release's files that are not on this disk yet. Downloads nothing."""
    if source.path is not None:
        return 0
    revision = source.revision or REVISION
    return sum(missing_bytes(REPOSITORY, name, revision, role) for name in RELEASES[source.release].files)


def _problem(row: dict[str, str], where: str) -> Problem:
    try:
        metadata = json.loads(row["metadata"] or "{}")
        func_name = metadata.get("func_name")
    except (ValueError, AttributeError, RecursionError):
        raise BadInput(f"{where}: its metadata is not a JSON object; download the file again") from None
    tests = read_tests(row["public_test_cases"], row["private_test_cases"], func_name, where)
    return Problem(
        id=row["question_id"],
        prompt=prompt(row["question_content"], row["starter_code"]),
        entry_point=func_name if "args" in tests[0] else None,
        tests=tests,
        difficulty=row["difficulty"],
        preamble=PREAMBLE,
    )


def _month(row: dict[str, str], where: str) -> str:
    try:
        return f"{datetime.fromisoformat(row['contest_date']):%Y-%m}"
    except ValueError:
        raise BadInput(f"{where}: contest_date {row['contest_date'][:40]!r} is not a date such as 2025-02-01") from None


def _rows(source: ProblemSource, role: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(where, row) one at a time: a line can be tens of megabytes."""
    if source.path is None:
        revision = source.revision or REVISION
        files = [from_hub(REPOSITORY, name, revision, role) for name in RELEASES[source.release].files]
    else:
        files = _local_files(source.path, source.release, role)
    for file in files:
        where = str(file)
        try:
            with open(file, encoding="utf-8-sig", newline="\n") as lines:
                for number, line in enumerate(lines, start=1):
                    where = f"problems.{role}: {file.name}, line {number}"
                    if line.strip():
                        yield where, _row(line, where)
        except UnicodeDecodeError:
            raise BadInput(f"problems.{role}: {file} is not a text file in UTF-8") from None


def _row(line: str, where: str) -> dict[str, str]:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise BadInput(f"{where}: not a JSON object")
    if missing := next((name for name in COLUMNS if not isinstance(row.get(name), str)), None):
        raise BadInput(f"{where}: {missing} is missing or no text; a row has {', '.join(COLUMNS)}")
    return row


def _local_files(given: str, release: str, role: str) -> list[Path]:
    path = Path(given).expanduser()
    if path.is_file():
        return [path]
    files = [path / name for name in RELEASES[release].files]
    if missing := next((file.name for file in files if not file.is_file()), None):
        raise BadInput(
            f"problems.{role}.path: {path} is neither a JSONL file of {REPOSITORY} nor a folder with {missing}, "
            f"which release {release} is read from"
        )
    return files
