"""HumanEval (arXiv 2107.03374): functions to be written from their head and docstring.

A row, all strings: task_id, prompt (code up to the docstring's end), canonical_solution (the body), entry_point, test
(defines check(candidate)). Read from openai/openai_humaneval, or from OpenAI's own HumanEval.jsonl.gz.
"""

from __future__ import annotations

import re

from mlx_ssd.errors import BadInput
from mlx_ssd.problems.hub_files import Row
from mlx_ssd.problems.suite import Suite
from mlx_ssd.records import Problem

# A chat model is asked for the whole function; what it is to write, and no more, is OpenAI's prompt.
PROMPT = """\
Complete this Python function. Answer with the whole function, in one fenced code block.

```python
{code}
```"""


def problem(row: Row, _number: int, where: str) -> Problem:
    """What stands before the function itself, imports and helpers, is at hand for program and check, as in OpenAI's
    harness, which grades prompt + completion + test as one program."""
    name, code = row["entry_point"], row["prompt"]
    heads = list(re.finditer(rf"^def {re.escape(name)}\(", code, re.MULTILINE))
    if not heads:
        raise BadInput(f"{where}: the prompt of {row['task_id']!r} has no function {name!r}; download the file again")
    preamble = code[: heads[-1].start()].strip()
    return Problem(
        id=row["task_id"],
        prompt=PROMPT.format(code=code.strip("\n")),
        entry_point=name,
        tests=[{"check": f"{preamble}\n\n{row['test'].strip()}\n".lstrip("\n")}],
        preamble=preamble or None,
        stem=code,
    )


SUITE = Suite(
    title="HumanEval",
    repository="openai/openai_humaneval",
    revision="7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544",
    file="openai_humaneval/test-00000-of-00001.parquet",
    copies=("HumanEval.jsonl.gz", "HumanEval.jsonl"),
    columns=dict.fromkeys(("task_id", "prompt", "entry_point", "test"), str),
    problems=164,
    problem=problem,
)
