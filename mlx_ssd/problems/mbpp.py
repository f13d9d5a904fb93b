"""MBPP, the part that its authors went over by hand (arXiv 2108.07732, "sanitized"): small functions and assertions.

A row: task_id int, prompt str, code str (a solution), test_imports list of str, test_list list of str (assertions).
Read from google-research-datasets/mbpp, or from the authors' own sanitized-mbpp.json, which has all splits.
"""

from __future__ import annotations

import ast
import warnings

from mlx_ssd.errors import BadInput
from mlx_ssd.problems.hub_files import Row
from mlx_ssd.problems.suite import Suite
from mlx_ssd.records import Problem

TEST_SPLIT = range(11, 511)  # by task_id; the rest is for training, validation and few-shot prompts

# The authors' words (google-research/mbpp/README.md) up to [BEGIN], which asks a base model for the code.
PROMPT = """\
You are an expert Python programmer, and here is your task: {task} Your code should pass these tests:

{tests}"""


def problem(row: Row, _number: int, where: str) -> Problem | None:
    """One check an assertion. Its imports are at hand for the program too: the authors run all as one program."""
    if row["task_id"] not in TEST_SPLIT:
        return None
    where = f"{where}: task {row['task_id']}"
    imports, asserts = "\n".join(row["test_imports"]), [text.strip() for text in row["test_list"]]
    if not asserts:
        raise BadInput(f"{where} has no tests; download the file again")
    return Problem(
        id=f"mbpp-{row['task_id']}",
        prompt=PROMPT.format(task=row["prompt"].strip(), tests="\n".join(asserts)),
        entry_point=_entry_point(row["code"], asserts, where),
        tests=[{"check": f"{imports}\n{text}".strip()} for text in asserts],
        preamble=imports or None,
    )


def _entry_point(code: str, asserts: list[str], where: str) -> str:
    """The function of the solution that every assertion calls. Nothing is run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some solutions have a backslash that escapes nothing
            defined = [node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)]
            called = [{n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)} for text in asserts]
    except (SyntaxError, ValueError, RecursionError):
        raise BadInput(f"{where}: its code or its tests are no Python; download the file again") from None
    common = [name for name in defined if all(name in names for names in called)]
    if not common:
        raise BadInput(f"{where}: no function of its code is called by all of its tests; download the file again")
    return common[-1]


SUITE = Suite(
    title="MBPP",
    repository="google-research-datasets/mbpp",
    revision="4bb6404fdc6cacfda99d4ac4205087b89d32030c",
    file="sanitized/test-00000-of-00001.parquet",
    copies=("sanitized-mbpp.json",),
    columns={"task_id": int, "prompt": str, "code": str, "test_imports": list, "test_list": list},
    problems=257,
    problem=problem,
)
