"""Grading of a run's journals: what it holds in memory, what it grades again, what it never leaves without a score."""

import tracemalloc

import pytest

from mlx_ssd.errors import WorkFailed
from mlx_ssd.evaluation import grade
from mlx_ssd.grading import Outcome
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Generation, Grade, Problem
from mlx_ssd.storage import Journal, write_records
from tests.suites.stand_in import StandIn, in_place

RIGHT, BASE_ID = "```python\ndef f(x): return x * x\n```", 100_000  # ids that CPython has no ready-made objects of


class Codes:
    """A tokenizer: a token is a character; what is below BASE_ID is nothing."""

    def get_added_vocab(self):
        return {}

    def batch_decode(self, completions, skip_special_tokens):
        return ["".join(chr(i - BASE_ID) for i in ids if BASE_ID <= i < 2 * BASE_ID) for ids in completions]


class Faulty(StandIn):
    """Cannot run the programs that say so, while `broken`."""

    broken = True

    def call(self, code, entry_point, calls, limits):
        if self.broken and "return None" in code:
            yield Outcome("harness_error", detail="no process")
        else:
            yield from super().call(code, entry_point, calls, limits)


def problem(name, **more):
    return Problem(**{"id": name, "prompt": "?", "entry_point": "f", "tests": [{"args": [3], "expected": 9}]} | more)


def generation(name, index, text, filler=0):
    ids = [BASE_ID + ord(character) for character in text] + [2 * BASE_ID + n for n in range(filler)]
    how = {"policy": "d", "seed": 0, "stream": "eval", "model": "m", "template": "t", "finish_reason": "stop"}
    return Generation(problem_id=name, sample_index=index, prompt_ids=[1], completion_ids=ids, **how)


def verdicts(path):
    return {grade.key: grade.verdict for grade in Journal(path, Grade).read()}


@pytest.fixture
def recipe():
    return Recipe.parse("", "r", {"evaluate.reuse_grades": False, "evaluate.workers": 1})


def test_only_programs_are_in_memory_whatever_the_length_of_the_answers(tmp_path, recipe):
    filler, samples, decodings = 4000, 100, 3
    problems, pairs = [problem("a"), problem("b")], []
    for number in range(decodings):
        pair = tmp_path / f"{number}.generations", tmp_path / f"{number}.grades"
        write_records(pair[0], [generation(p.id, i, RIGHT, filler) for p in problems for i in range(samples)])
        pairs.append(pair)
    with in_place(StandIn(tmp_path / "ran")):
        tracemalloc.start()
        grade(pairs, problems, recipe, Codes(), "test")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    answers = decodings * len(problems) * samples
    assert peak < answers * filler * 40 / 5  # bytes; the tokens of all answers are more than 40 each
    assert all(verdicts(grades) == {(p.id, i): "pass" for p in problems for i in range(samples)} for _, grades in pairs)


def test_a_problem_without_a_graded_sample_is_named_and_graded_again(tmp_path, recipe):
    broken, right = RIGHT.replace("x * x", "None"), [problem(f"p{n}") for n in range(99)]
    problems, pair = [*right, problem("lost")], (tmp_path / "generations", tmp_path / "grades")
    texts = {p.id: [RIGHT, RIGHT] for p in right} | {"lost": [broken, broken], "p0": [RIGHT, broken]}
    write_records(pair[0], [generation(name, i, text) for name, both in texts.items() for i, text in enumerate(both)])
    with in_place(Faulty(tmp_path / "ran")) as sandbox:
        for _ in range(2):  # 3 of 200 are more than 1 %, and so they are of 3 that wait
            with pytest.raises(WorkFailed, match="grading was stopped"):
                grade([pair], problems, recipe, Codes(), "test")
        texts["p0"] = [RIGHT, RIGHT]
        write_records(pair[0], [generation(name, i, t) for name, both in texts.items() for i, t in enumerate(both)])
        for _ in range(2):  # 2 are not, nor are they when nothing else waits
            with pytest.raises(WorkFailed) as raised:
                grade([pair], problems, recipe, Codes(), "test base")
            assert str(raised.value).startswith("test base: no sample of problem 'lost' could be graded (no process);")
            assert "run the same command again" in str(raised.value) and "remove the problem" in str(raised.value)
        sandbox.broken = False
        grade([pair], problems, recipe, Codes(), "test")
    found = verdicts(pair[1])
    assert found["lost", 0] == found["lost", 1] == "wrong" and found["p0", 0] == "pass"
    lines = len(pair[1].read_text().splitlines())
    with in_place(sandbox):
        grade([pair], problems, recipe, Codes(), "test")
    assert len(pair[1].read_text().splitlines()) == lines


def test_a_program_that_could_not_be_run_is_tried_once_more_before_it_is_lost(tmp_path, recipe):
    class Busy(Faulty):
        """Can run it the second time."""

        def call(self, *given):
            outcomes = list(super().call(*given))
            self.broken &= "return None" not in given[0]
            yield from outcomes

    problems = [problem(f"p{n}") for n in range(100)]
    pair = tmp_path / "generations", tmp_path / "grades"
    texts = {p.id: RIGHT for p in problems} | {"p7": RIGHT.replace("x * x", "None")}
    write_records(pair[0], [generation(name, 0, text) for name, text in texts.items()])
    with in_place(Busy(tmp_path / "ran")):
        grade([pair], problems, recipe, Codes(), "test")
    assert verdicts(pair[1])["p7", 0] == "wrong"


def test_a_problem_of_which_one_sample_could_be_graded_is_not_lost(tmp_path, recipe):
    problems, pair = [problem("a")], (tmp_path / "generations", tmp_path / "grades")
    texts = [RIGHT] * 99 + [RIGHT.replace("x * x", "None")]
    write_records(pair[0], [generation("a", i, text) for i, text in enumerate(texts)])
    with in_place(Faulty(tmp_path / "ran")):
        grade([pair], problems, recipe, Codes(), "test")
    assert verdicts(pair[1])["a", 99] == "harness_error"


def test_numbers_are_read_again_by_the_rules_of_now(tmp_path, recipe):
    problems = [problem("n", entry_point=None, tests=[{"answer": "1000"}])]
    pair = tmp_path / "generations", tmp_path / "grades"
    write_records(pair[0], [generation("n", 0, r"\boxed{1{,}000}"), generation("n", 1, "7")])
    old = [Grade(problem_id="n", sample_index=i, verdict="wrong", failed_test=0, detail="older rules") for i in (0, 1)]
    write_records(pair[1], old)
    for _ in range(2):
        grade([pair], problems, recipe, Codes(), "test")
        assert verdicts(pair[1]) == {("n", 0): "pass", ("n", 1): "wrong"}
    assert len(pair[1].read_text().splitlines()) == 4  # and nothing is written where nothing has changed
