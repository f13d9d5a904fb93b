"""Rows in the format of LiveCodeBench's JSONL files."""

import base64
import json
import pickle
import zlib
from pathlib import Path

STARTER = "class Solution:\n    def f(self, a: List[int]) -> int:\n        "


def stdin(*pairs: tuple[str, str]) -> list[dict]:
    return [{"input": given, "output": printed, "testtype": "stdin"} for given, printed in pairs]


def functional(*pairs: tuple[str, str]) -> list[dict]:
    return [{"input": given, "output": returned, "testtype": "functional"} for given, returned in pairs]


def compressed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


def packed(tests: list[dict], protocol: int = 4) -> str:
    """Private tests as the data set has them."""
    return compressed(pickle.dumps(json.dumps(tests), protocol=protocol))


def row(name: str, date: str = "2025-03-01T00:00:00", **changes) -> dict[str, str]:
    """A problem for standard input; give metadata and starter_code, and functional tests, for the other kind."""
    return {
        "question_title": f"Title of {name}",
        "question_content": f"Statement of {name}: {{braces}} stay.",
        "platform": "atcoder",
        "question_id": name,
        "contest_id": "abc000",
        "contest_date": date,
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(stdin(("1\n", "2\n"))),
        "private_test_cases": packed(stdin(("3\n", "4\n"))),
        "metadata": "{}",
    } | changes


def function_row(name: str, *pairs: tuple[str, str], **changes) -> dict[str, str]:
    return row(
        name,
        platform="leetcode",
        starter_code=STARTER,
        metadata='{"func_name": "f"}',
        public_test_cases=json.dumps(functional(*pairs[:1])),
        private_test_cases=packed(functional(*pairs[1:])),
        **changes,
    )


def write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
