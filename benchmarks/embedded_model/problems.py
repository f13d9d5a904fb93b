"""The shipped problem files: one JSON object a line, bit-equal for a seed.

    {"v": 1, "id": "test-0000", "prompt": "...", "entry_point": "solve",
     "tests": [{"args": [[1, 2, 3]], "expected": 6}, ...], "difficulty": "easy" | "hard"}

`tests` is empty in the training split: self-distillation sees prompts only.
"""

import json
from pathlib import Path

from benchmarks.embedded_model.tasks import Problem, Split, make_split

COUNTS: dict[Split, int] = {"train": 2_000, "validation": 240, "test": 600}
VERSION = 1


def record(problem: Problem, split: Split, number: int) -> dict:
    return {
        "v": VERSION,
        "id": f"{split}-{number:04d}",
        "prompt": problem.prompt,
        "entry_point": "solve",
        "tests": [{"args": [argument], "expected": expected} for argument, expected in problem.tests],
        "difficulty": "hard" if problem.spec.hard else "easy",
    }


def problems_jsonl(split: Split, seed: int) -> str:
    """The text of one split's file."""
    problems = make_split(split, COUNTS[split], seed, with_tests=split != "train")
    lines = [json.dumps(record(problem, split, number)) for number, problem in enumerate(problems)]
    return "\n".join(lines) + "\n"


def write_problems(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split in COUNTS:
        (folder / f"{split}.jsonl").write_bytes(problems_jsonl(split, seed).encode())
