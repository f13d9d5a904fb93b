"""Run by test_faults.py in a process of its own: grade and score what lies in a directory, with a stand-in sandbox.

    python -m tests.suites.grading_child file|run DIRECTORY

file: `mlx-ssd grade`'s way, answers.jsonl into grades.jsonl. run: that of the stages evaluate and score, a run's
journals of generations. The scores go to DIRECTORY/scores.json.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mlx_ssd import storage
from mlx_ssd.child import exit_code
from mlx_ssd.comparisons import compared, outcome
from mlx_ssd.controls import Entry, test_entries
from mlx_ssd.evaluation import grade
from mlx_ssd.problems import read_problems
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Generation
from mlx_ssd.storage import write_json, write_records
from mlx_ssd.suites import choose
from mlx_ssd.suites.grading import grade_file
from tests.suites.stand_in import PROBLEMS, SAMPLES, StandIn, answer, in_place


class Bytes:
    """A tokenizer: a token is a byte."""

    def batch_decode(self, ids, skip_special_tokens):
        return [bytes(one).decode() for one in ids]

    def get_added_vocab(self):
        return {}


def recipe_of(directory: Path) -> Recipe:
    settings = {
        "problems.test": {"source": "jsonl", "path": str(directory / "problems.jsonl")},
        "evaluate.samples_per_problem": SAMPLES,
        "evaluate.pass_at": [1, 2],
        "evaluate.bootstrap_resamples": 100,
        "evaluate.curve": None,
    }
    return Recipe.load("quickstart", settings)


def entries(directory: Path) -> list[Entry]:
    return test_entries(recipe_of(directory), directory)


def draw(directory: Path) -> None:
    """A run's generations, without a model."""
    for entry in entries(directory):
        arm = entry.label.removeprefix("base")
        write_records(entry.generations, [_generation(i, j, arm) for i in range(PROBLEMS) for j in range(SAMPLES)])


def _generation(problem: int, sample: int, arm: str) -> Generation:
    return Generation(
        problem_id=f"p{problem:02}",
        sample_index=sample,
        prompt_ids=[0],
        completion_ids=list(answer(problem, sample, arm).encode()),
        finish_reason="stop",
        policy="d",
        seed=0,
        stream="eval",
        model="m",
        template="t",
    )


def main(mode: str, directory: Path, seconds: float) -> None:
    with in_place(StandIn(directory / "ran.txt", seconds)):
        if mode == "file":
            suite = choose("jsonl", str(directory / "problems.jsonl"))
            facts = grade_file(directory / "answers.jsonl", suite, directory / "grades.jsonl")
        else:
            recipe, found = recipe_of(directory), entries(directory)
            problems = read_problems(recipe.problems.test, "test")
            grade([(entry.generations, entry.grades) for entry in found], problems, recipe, Bytes(), "test")
            facts = compared(recipe, directory, [outcome(entry, problems, recipe) for entry in found])
    write_json(directory / "scores.json", facts)


def work(mode: str, directory: Path, seconds: float = 0.0) -> int:
    """As a process's only work; SECONDS a program."""
    storage.FLUSH_SECONDS = 0.0  # each grade is on disk before the next is waited for
    return exit_code(lambda: main(mode, directory, seconds))


if __name__ == "__main__":
    sys.exit(work(sys.argv[1], Path(sys.argv[2])))
