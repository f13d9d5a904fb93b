"""A preamble stands before every program of its problem, and behind imports from __future__."""

import pytest

from mlx_ssd.errors import BadInput
from mlx_ssd.evaluation import grade
from mlx_ssd.grading import with_preamble
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Generation, Grade, Problem
from mlx_ssd.stages.evaluate import check
from mlx_ssd.storage import Journal, write_records

FUTURE = "from __future__ import annotations"
BRACKETS = "from __future__ import (\n  annotations,\n)"


@pytest.mark.parametrize(
    "code, expected",
    [
        ("x = 1", "import re\nx = 1"),
        ("", "import re\n"),
        (f"{FUTURE}\nx = 1", f"{FUTURE}\nimport re\nx = 1"),
        (f"# why\n{FUTURE}  # so\n{FUTURE}\nx = 1", f"# why\n{FUTURE}  # so\n{FUTURE}\nimport re\nx = 1"),
        (f"{BRACKETS}\nx = 1", f"{BRACKETS}\nimport re\nx = 1"),
        (FUTURE, f"{FUTURE}\nimport re\n"),
        (f"def f():\n    {FUTURE}", f"import re\ndef f():\n    {FUTURE}"),
    ],
)
def test_where_it_stands(code, expected):
    assert with_preamble(code, "import re") == expected


def test_nothing_to_put_and_nothing_to_put_it_before():
    assert with_preamble("x = 1", None) == "x = 1"
    assert with_preamble(None, "import re") is None


def test_evaluation_grades_behind_the_preamble_of_the_problem(tmp_path):
    class Tokenizer:
        def get_added_vocab(self):
            return {}

        def batch_decode(self, ids, skip_special_tokens):
            return ["```python\ndef f(xs: List[int]): return sqrt(len(xs))\n```" for _ in ids]

    tests = [{"args": [[1, 2, 3, 4]], "expected": 2}]
    plain = Problem(id="plain", prompt="p", entry_point="f", tests=tests)
    behind = plain.model_copy(update={"id": "behind", "preamble": "from typing import *; from math import *"})
    generations = [
        Generation(
            problem_id=problem.id, sample_index=0, prompt_ids=[1], completion_ids=[2], finish_reason="stop",
            policy="p", seed=0, stream="eval", model="m", template="t",
        )
        for problem in (plain, behind)
    ]  # fmt: skip
    write_records(tmp_path / "generations", generations)
    pairs = [(tmp_path / "generations", tmp_path / "grades")]
    grade(pairs, [plain, behind], Recipe(), Tokenizer(), "test")
    verdicts = {g.problem_id: g.verdict for g in Journal(tmp_path / "grades", Grade).read()}
    assert verdicts == {"plain": "error", "behind": "pass"}


@pytest.mark.parametrize("kind", ["stdin", "functional"])
def test_an_answer_longer_than_a_program_may_print_is_refused_beforehand(tmp_path, kind):
    def recipe(length: int) -> Recipe:
        text = "x" * length
        test = {"stdin": "", "stdout": text} if kind == "stdin" else {"args": [], "expected": text[2:]}  # and quotes
        problems = [Problem(id=name, prompt=name, entry_point="f", tests=[test]) for name in "ab"]
        write_records(tmp_path / "x.jsonl", problems)
        source = {"source": "jsonl", "path": str(tmp_path / "x.jsonl")}
        return Recipe.parse("", "r", {"problems.test": source, "evaluate.limits.output_kb": 4})

    check(recipe(4096))
    with pytest.raises(BadInput, match="output_kb: a test of problem 'a' expects an answer of 5 KB, more than the 4 "):
        check(recipe(4097))
