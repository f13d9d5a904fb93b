"""Whether graders accept what the authors of a set say is right, and refuse it once it is changed.

    python -m benchmarks.reference_answers --mbpp sanitized-mbpp.json
    python -m benchmarks.reference_answers --gsm8k test.jsonl

The files are the authors' own (google-research/google-research, mbpp/; openai/grade-school-math,
grade_school_math/data/), which are not part of this project. MBPP's solutions are changed in what they return:
`None`. GSM8K's answers by one. Ends with exit code 1 where a verdict is not what it should be.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mlx_ssd.grading import Limits, grade_answers
from mlx_ssd.problems import read_problems
from mlx_ssd.records import Problem
from mlx_ssd.sections import Limits as Usual
from mlx_ssd.sections import ProblemSource
from mlx_ssd.suites import choose

Answers = Iterator[tuple[bool, Problem, str]]
"""(whether it is right, its problem, what a model would have written)"""


def mbpp(file: Path) -> Answers:
    code = {f"mbpp-{row['task_id']}": row["code"] for row in json.loads(file.read_text(encoding="utf-8"))}
    for problem in read_problems(ProblemSource(source="mbpp", path=str(file)), "test"):
        right = code[problem.id]
        yield True, problem, f"```python\n{right}\n```"
        yield False, problem, f"```python\n{right}\n\ndef {problem.entry_point}(*arguments):\n    return None\n```"


def gsm8k(file: Path) -> Answers:
    for problem in read_problems(ProblemSource(source="gsm8k", path=str(file)), "test"):
        number = problem.tests[0]["answer"]
        yield True, problem, f"The answer is \\boxed{{{number}}}."
        yield False, problem, f"The answer is \\boxed{{{float(number.replace(',', '')) + 1:f}}}."


def verdicts(name: str, answers: Answers) -> dict[bool, Counter[str]]:
    limits = choose(name).own_limits() or Usual()
    items = [((right, number), problem, text) for number, (right, problem, text) in enumerate(answers)]
    found: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for (right, _), verdict in grade_answers(items, Limits(**vars(limits)), workers=2, reuse=False):
        found[right][verdict.verdict] += 1
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mbpp", type=Path)
    parser.add_argument("--gsm8k", type=Path)
    options = parser.parse_args()
    good = True
    for name, read, file in (("mbpp", mbpp, options.mbpp), ("gsm8k", gsm8k, options.gsm8k)):
        if file is not None:
            found = verdicts(name, read(file))
            print(f"{name}: as given {dict(found[True])}, changed {dict(found[False])}")
            good &= set(found[True]) == {"pass"} and "pass" not in found[False]
    return not good


if __name__ == "__main__":
    sys.exit(main())
