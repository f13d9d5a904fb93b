"""A file of problems, one JSON object a line. A prompt is enough: `{"prompt": "…"}`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from mlx_ssd.errors import BadInput
from mlx_ssd.records import Problem, parse_line
from mlx_ssd.sections import ProblemSource
from mlx_ssd.storage import hash_bytes

EXAMPLE = '{"prompt": "Write a function that reverses a string."}'


def path(source: ProblemSource, role: str) -> Path:
    """The file that a jsonl source names. Raises BadInput when it is none."""
    file = Path(source.path or "").expanduser()
    if not file.is_file():
        why = "is a folder, not a file" if file.is_dir() else "does not exist"
        raise BadInput(f"problems.{role}.path: {file} {why}")
    return file


def read(file: Path, role: str) -> list[Problem]:
    """All problems of a file in its order; blank lines are passed over.

    A problem without an id gets one from its prompt, so that it keeps it wherever its line stands.
    Raises BadInput with the line's number for one that is no problem, and for an id given twice.
    """
    data = file.read_bytes()
    try:
        lines = data.decode("utf-8-sig").split("\n")  # splitlines would cut at U+2028 too
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        raise BadInput(
            f"problems.{role}.path: {file}, line {number}: not a text file in UTF-8; "
            f"save it as UTF-8, with one JSON object a line such as {EXAMPLE}"
        ) from None
    problems = []
    unnamed: Counter[str] = Counter()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        problem = _parse(line, f"{file}, line {number}", first=not problems)
        if not problem.id:
            name = f"prompt-{hash_bytes(problem.prompt.encode())[:12]}"
            unnamed[name] += 1
            name += f"-{unnamed[name]}" if unnamed[name] > 1 else ""
            problem = problem.model_copy(update={"id": name})
        problems.append(problem)
    if not problems:
        raise BadInput(f"problems.{role}.path: {file} holds no problem; a line looks like {EXAMPLE}")
    twice = [id_ for id_, count in Counter(p.id for p in problems).items() if count > 1]
    if twice:
        raise BadInput(
            f"problems.{role}.path: {file} has id {twice[0]!r} more than once; ids must be unique, or left out"
        )
    return problems


def _parse(line: str, where: str, first: bool) -> Problem:
    """The problem of one line; its id is "" when the line gives none."""
    if first and line.lstrip().startswith("["):
        raise BadInput(
            f"{where}: a JSON array; write one object a line, such as {EXAMPLE} "
            "(`jq -c '.[]' FILE` turns an array into such lines)"
        )
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise BadInput(f"{where}: not JSON; write one object a line, such as {EXAMPLE}") from None
    if not isinstance(value, dict):
        raise BadInput(f"{where}: not a JSON object; a line looks like {EXAMPLE}")
    unknown = [key for key in value if key not in Problem.model_fields]
    if "prompt" not in value:
        raise BadInput(f'{where}: not a valid problem (prompt): it has no "prompt"; a line looks like {EXAMPLE}')
    if unknown:
        known = ", ".join(key for key in Problem.model_fields if key != "v")
        raise BadInput(f"{where}: not a valid problem: it has {unknown[0]!r}, and its keys can be {known}")
    if value.get("id") is None:
        value["id"] = ""
    problem = parse_line(Problem, json.dumps(value), where)
    if not problem.prompt.strip():
        raise BadInput(f"{where}: the prompt is empty; a line looks like {EXAMPLE}")
    return problem
