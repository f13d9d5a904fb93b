"""200 rows in the schema of rStar-Coder's seed_sft, with every kind of row that a selection must tell apart."""

import json
import random
from pathlib import Path

from mlx_ssd.assets import problems_path
from mlx_ssd.records import Problem

LONG = Problem(id="long", prompt=" ".join(f"word{i}" for i in range(20)))
SHORT = Problem(id="short", prompt="Print the sum of a and b.")
STARTER = "class Solution:\n    def solve(self, n: int) -> int:\n        "


def embedded_tests() -> list[Problem]:
    return [Problem.model_validate_json(line) for line in problems_path("test").read_text().splitlines()]


def judged() -> list[Problem]:
    return [*embedded_tests(), LONG, SHORT]


def statement(kind: str, number: int) -> str:
    """Twenty-five words that no other statement has."""
    return f"Problem {kind}{number}.\n\n" + " ".join(f"{kind}{number}x{word}" for word in range(23))


def rows() -> list[dict]:
    made: list[dict] = []

    def add(question_id: str, question: str | None, is_passed: bool, starter_code: str = "") -> None:
        made.append(
            {
                "question_id": question_id,
                "question": question,
                "starter_code": starter_code,
                "response": "<think>long</think>",
                "code": "print(1)",
                "verified": True,
                "is_passed": is_passed,
            }
        )

    for i in range(40):  # nobody solved these
        add(f"seed_a{i}", statement("a", i), False)
    for i in range(20):  # solved, but not by the first row; the rows differ in white space alone
        text = statement("b", i)
        add(f"seed_b{i}", text, False)
        add(f"seed_b{i}", "  " + text.replace(" ", "  ") + "\n", True)
        add(f"seed_b{i}", text.replace("\n\n", "\r\n\t"), True)
    for i in range(10):
        add(f"seed_c{i}", statement("c", i), True)
        add(f"seed_c{i}", statement("c", i), True)
    for i, blank in enumerate(["", " ", "\n", "\t \r\n", None, "\u00a0", "", None]):
        add(f"seed_d{i}", blank, i % 2 == 0)
    tests = embedded_tests()
    for i in range(3):  # a test problem inside another text
        add(f"seed_e{i}", f"{statement('e', i)} {tests[i].prompt} {statement('f', i)}", True)
    add("seed_e3", tests[3].prompt, True)
    add("seed_e4", tests[4].prompt.upper().replace(" ", " - "), True)
    add("seed_e5", tests[5].prompt.replace(",", "").replace(".", "!"), True)
    add("seed_e5", tests[5].prompt.replace(",", "").replace(".", "!").replace(" ", "\n"), True)
    shared = LONG.prompt.split()
    for i, part in enumerate((shared[:13], shared[7:], shared[3:16])):  # thirteen words in a row
        add(f"seed_g{i}", f"{statement('g', i)} {' '.join(part)} {statement('h', i)}", True)
    for i, part in enumerate((shared[:12], shared[2:14])):  # twelve: one too few
        add(f"seed_i{i}", f"{statement('i', i)} {' '.join(part)} {statement('j', i)}", True)
    add("seed_k0", "print the SUM: of A and B!", True)
    add("seed_k1", "Print the sum of a and b twice.", True)
    for i in range(4):  # two statements under one id
        add(f"seed_l{i}", statement("l", i), True)
        add(f"seed_l{i}", statement("m", i), True)
    for i in range(20):
        add(f"seed_n{i}", statement("n", i), True, STARTER)
    for i in range(30):
        add(f"seed_o{i}", statement("o", i), i < 15)
    return made


def write_jsonl(path: Path, made: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return path


def shuffled(made: list[dict], seed: int) -> list[dict]:
    return random.Random(seed).sample(made, len(made))
