"""All of HumanEval: OpenAI's solutions pass, and solutions with one place changed that are proven wrong do not."""

import pytest

from benchmarks import humaneval_mutants as program
from benchmarks import journal
from mlx_ssd.grading import grade_many
from mlx_ssd.grading.texts import what_is_graded


@pytest.fixture(scope="module")
def problems():
    return program.solved()


def graded(answers, sandbox):
    items = [(key, what_is_graded(p, text), p.entry_point, p.tests) for key, p, text in answers]
    return {key: found.verdict for key, found in grade_many(items, program.LIMITS, sandbox, workers=2)}


@pytest.mark.parametrize("form", ["body", "whole"])
def test_the_164_solutions_pass(problems, sandboxes, form):
    texts = {
        "body": lambda of: of.row["canonical_solution"],
        "whole": lambda of: f"So:\n{program.fenced(of.program)}\nDone.",
    }
    found = graded([(of.problem.id, of.problem, texts[form](of)) for of in problems], sandboxes["whole"])
    assert len(found) == 164 and {id_ for id_, verdict in found.items() if verdict != "pass"} == set()


def test_mutants_that_are_proven_wrong_are_rejected(problems, sandboxes):
    mutants = program.wrong_mutants(problems[3::4], 40, workers=2)
    assert {mutant.kind for mutant in mutants} == {"operator", "comparison", "constant", "off by one", "return"}
    answers = [(number, mutant.problem, program.fenced(mutant.program)) for number, mutant in enumerate(mutants)]
    found = graded(answers, sandboxes["whole"])
    assert len(found) == 40 and set(found.values()) <= {"wrong", "error", "timeout", "memory"}


def test_what_is_not_proven_wrong_is_no_mutant(problems, monkeypatch):
    monkeypatch.setattr(program, "PLAIN_SECONDS", 2.0)
    right = program.Mutant(problems[0].problem, "return", problems[0].program, problems[0].row)
    assert not program.proven_wrong(right)
    for change in ("return", "("), ("return False", "while True: pass"):
        wrong = program.Mutant(problems[0].problem, "return", right.program.replace(*change), right.row)
        assert program.proven_wrong(wrong)


def test_every_kind_of_mutant_changes_one_place():
    row = {"prompt": "def f(x):\n", "entry_point": "f",
           "canonical_solution": "    return x + 1 if x < 2 and True else 'a'\n"}  # fmt: skip
    problem = program.solved()[0].problem.model_copy(update={"entry_point": "f"})
    found = {mutant.program.partition("return ")[2] for mutant in program.mutants(program.Solved(problem, row))}
    assert found == {
        "None", "x + 1 if x < 2 or True else 'a'", "x - 1 if x < 2 and True else 'a'",
        "x + 1 if x <= 2 and True else 'a'",
        "x + 2 if x < 2 and True else 'a'", "x + -7 if x < 2 and True else 'a'", "x + 1 if x < 3 and True else 'a'",
        "x + 1 if x < -7 and True else 'a'", "x + 1 if x < 2 and False else 'a'", "x + 1 if x < 2 and True else 'a?'",
    }  # fmt: skip


@pytest.mark.skipif(not (journal.RESULTS / "humaneval.jsonl").exists(), reason="not measured yet")
def test_the_documented_figures_are_those_of_the_committed_rows():
    rows = journal.read(journal.RESULTS / "humaneval.jsonl")
    latest = {row["experiment"]: row for row in rows}
    assert latest["mutants"]["mutants"] >= 300 and latest["mutants"]["not_rejected"] == []
    assert latest["canonical"]["passed"] == {"body": 164, "whole": 164}
    docs = (journal.RESULTS.parents[1] / "docs" / "benchmarks.md").read_text()
    assert "\n".join(program.lines(rows)) in docs
    assert (journal.RESULTS / "humaneval.md").read_text() == program.table(rows)
