"""GSM8K (arXiv 2110.14168): word problems of grade school, whose answer is a number.

A row, both strings: question, answer (a worked solution whose last line is `#### 42`). Read from openai/gsm8k,
configuration main, or from the authors' own test.jsonl. It is far from code: what a student lost shows here.
"""

from __future__ import annotations

from mlx_ssd.errors import BadInput
from mlx_ssd.problems.hub_files import Row
from mlx_ssd.problems.suite import Suite
from mlx_ssd.records import Problem

# The sentence that the cards of Qwen's models recommend for mathematics.
PROMPT = """\
{question}

Please reason step by step, and put your final answer within \\boxed{{}}."""


def problem(row: Row, number: int, where: str) -> Problem:
    """Rows have no name: they are numbered from 0 in the order of the file."""
    _, marker, answer = row["answer"].rpartition("####")
    if not marker or not answer.strip():
        raise BadInput(f"{where}: its answer has no line `#### …`; download the file again")
    return Problem(
        id=f"gsm8k-{number}",
        prompt=PROMPT.format(question=row["question"].strip()),
        tests=[{"answer": answer.strip()}],
    )


SUITE = Suite(
    title="GSM8K",
    repository="openai/gsm8k",
    revision="e53f048856ff4f594e959d75785d2c2d37b678ee",
    file="main/test-00000-of-00001.parquet",
    copies=("test.jsonl",),
    columns={"question": str, "answer": str},
    problems=1319,
    problem=problem,
)
