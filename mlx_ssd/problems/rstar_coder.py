"""The paper's prompts: the human-written problems of microsoft/rStar-Coder (arXiv 2505.21297), configuration seed_sft.

A row is one recorded solution, about 16 a problem, so most rows repeat a statement:
    question_id str, question str, starter_code str, response str, code str, verified bool, is_passed bool
Only the statement and its starter code are used. Tests are another configuration (seed_testcase, about
150 GB) and are not read: these problems can be sampled and trained on, not graded.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.problems.decontaminate import judged, normal_form
from mlx_ssd.records import Problem
from mlx_ssd.sections import ProblemSource
from mlx_ssd.storage import hash_json, hash_path

REPOSITORY = "microsoft/rStar-Coder"
REVISION = (
    "9c523c22b51de15b03b73e102e49d6d42e1cb353"  # the last commit that changed seed_sft; without one in the recipe
)
BATCH = 256  # rows
COLUMNS: dict[str, type] = {"question_id": str, "question": str, "starter_code": str}
PASSED: dict[str, type] = {"is_passed": bool}

Row = dict[str, Any]

FUNCTION = """\
{statement}

Begin with this code, and keep its names and parameters:

```python
{starter}
```"""
PROGRAM = """\
{statement}

Write a whole program: it reads its input from standard input and prints its answer to standard output."""


def identity(source: ProblemSource, role: str) -> str:
    """`microsoft/rStar-Coder@COMMIT`, or a hash of a local copy's contents in the order they are read."""
    if source.path is None:
        return f"{REPOSITORY}@{source.revision or REVISION}"
    hashes = [hash_path(file) for file in _local_files(source.path, role)]
    return hashes[0] if len(hashes) == 1 else hash_json(hashes)


def prompt(statement: str, starter_code: str | None) -> str:
    """The user's turn: a function to complete where there is starter code, else a program for stdin and stdout."""
    if starter_code and starter_code.strip():
        return FUNCTION.format(statement=statement.strip(), starter=starter_code.strip("\n").rstrip())
    return PROGRAM.format(statement=statement.strip())


def select(source: ProblemSource, against: Sequence[Problem], role: str) -> tuple[list[Problem], dict[str, int | str]]:
    """One problem a statement, the first row of each, in the order of the data; reading stops once
    `source.skip` + `source.limit` are selected. The account says where every row read went.

    `select: passed` looks at is_passed before it looks for repetitions: a statement is one that
    somebody solved when any of its rows was passed, not when its first one was.
    """
    tests = None
    if source.decontaminate and against:
        tests = judged((problem.prompt for problem in against), source.decontaminate)
    seen: set[bytes] = set()  # hashes: the statements of all rows are too many to hold
    questions: set[str] = set()
    count: Counter[str] = Counter()
    problems: list[Problem] = []
    wanted = None if source.limit is None else source.skip + source.limit
    full = False
    for row in _rows(source, role):
        count["rows"] += 1
        statement, question = row["question"] or "", row["question_id"] or ""
        if not statement.strip():
            count["blank"] += 1
            continue
        if source.select == "passed" and not row["is_passed"]:
            count["not_passed"] += 1
            continue
        key = hashlib.blake2b(normal_form(statement).encode(), digest_size=16).digest()
        if key in seen:
            count["duplicate"] += 1
            continue
        seen.add(key)
        if question and question in questions:
            if source.select == "passed":
                count["same_question"] += 1
                continue
            question = ""  # another statement under the same id
        questions.add(question)
        text = prompt(statement, row["starter_code"])
        if tests and (tests.shares(statement) or tests.holds(text)):
            count["leaked"] += 1
            continue
        if count["skipped"] < source.skip:
            count["skipped"] += 1
        else:
            problems.append(Problem(id=question or f"rstar-{key.hex()}", prompt=text))
        full = count["skipped"] + len(problems) == wanted
        if full:
            break
    names = ("rows", "blank", "not_passed", "duplicate", "same_question", "leaked", "skipped")
    account: dict[str, int | str] = {
        "source": source.source,
        "select": source.select,
        "read": "until enough were selected" if full else "to the end",
        **{name: count[name] for name in names},
        "kept": len(problems),
        "compared_with": len(against) if tests else 0,
    }
    if source.select == "passed":
        account["note"] = "is_passed peeks at correctness: only problems that some recorded solution passed"
    if not problems:
        left_out = ", ".join(f"{count[name]} {name}" for name in names if count[name])
        raise BadInput(f"problems.{role}: rstar_coder leaves no problem ({left_out or 'no rows'})")
    return problems, account


def _rows(source: ProblemSource, role: str) -> Iterator[Row]:
    """The rows of the data, one at a time, only the columns needed, of the types that the data set has."""
    columns = COLUMNS | (PASSED if source.select == "passed" else {})
    if source.path is None:
        files = [f"hf://datasets/{REPOSITORY}@{source.revision or REVISION}/seed_sft/*.parquet"]
    else:
        files = [str(file) for file in _local_files(source.path, role)]
    for file in files:
        read = _jsonl_rows if file.endswith(".jsonl") else _parquet_rows
        for where, row in read(file, role, list(columns)):
            for name, kind in columns.items():
                if row[name] is not None and not isinstance(row[name], kind):
                    raise BadInput(f"problems.{role}: {where}: {name} is {row[name]!r}, not a {kind.__name__}")
            yield row


def _local_files(given: str, role: str) -> list[Path]:
    path = Path(given).expanduser()
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [file for file in files if file.suffix in (".parquet", ".jsonl") and file.is_file()]
    if not files:
        raise BadInput(
            f"problems.{role}.path: {path} is neither a .parquet or .jsonl file of rStar-Coder's seed_sft "
            "nor a folder that holds some"
        )
    return files


def _jsonl_rows(file: str, role: str, columns: list[str]) -> Iterator[tuple[str, Row]]:
    try:
        with open(file, encoding="utf-8-sig", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                where = f"{file}, line {number}"
                row = json.loads(line)
                missing = [name for name in columns if name not in row] if isinstance(row, dict) else columns
                if missing:
                    raise BadInput(f"problems.{role}: {where}: no {missing[0]}; a row has {', '.join(columns)}")
                yield where, {name: row[name] for name in columns}
    except UnicodeDecodeError:
        raise BadInput(f"problems.{role}: {file} is not a text file in UTF-8") from None
    except json.JSONDecodeError:
        raise BadInput(f"problems.{role}: {where}: not a JSON object") from None


def _parquet_rows(file: str, role: str, columns: list[str]) -> Iterator[tuple[str, Row]]:
    """Rows of a local file or of the hub's, streamed: of a file the columns asked for, a group of rows at a time.

    Not through the package `datasets`: where its streaming is left before its end, threads go on reading through
    Python, and an interpreter that ends meanwhile aborts (apache/arrow issue 45214).
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise BadInput(
            f"problems.{role}: rstar_coder is parquet, which the package pyarrow reads; `pip install pyarrow`"
        ) from None
    remote = file.startswith("hf://")
    number = 0
    try:
        for opened in _opened(file, remote):
            with opened:
                table = pyarrow.parquet.ParquetFile(opened, pre_buffer=False)
                if missing := [name for name in columns if name not in table.schema_arrow.names]:
                    has = ", ".join(columns)
                    raise BadInput(f"problems.{role}: {file} has no column {missing[0]}; a row has {has}")
                for batch in table.iter_batches(BATCH, columns=columns, use_threads=False):
                    for row in batch.to_pylist():
                        number += 1
                        yield f"{file}, row {number}", row
    except BadInput:
        raise
    except Exception as error:  # whatever network, hub, disk and parquet readers raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        if remote and number:
            raise WorkFailed(f"problems.{role}: the hub broke off after {number} rows ({reason}); try again") from None
        mend = "check the network and the revision, or give path: a local copy" if remote else "restore the file"
        raise BadInput(f"problems.{role}: cannot read {file} ({reason}); {mend}") from None


def _opened(file: str, remote: bool) -> Iterator[Any]:
    """A local file, or each of the hub's that the pattern names. Of these the ranges that are read are fetched."""
    if not remote:
        yield open(file, "rb")
        return
    from huggingface_hub import HfFileSystem

    hub = HfFileSystem()
    names = sorted(hub.glob(file.removeprefix("hf://")))
    if not names:
        raise FileNotFoundError("no such file on the hub")
    yield from (hub.open(name, "rb") for name in names)
