"""`mlx-ssd grade`: what it gives, keeps and refuses. The stand-in sandbox runs the programs at once."""

import fcntl
import gzip
import json
import os
import signal
import time

import pytest
from click.testing import CliRunner

from mlx_ssd import __version__, assets
from mlx_ssd.cli import main
from mlx_ssd.grading import Outcome
from mlx_ssd.records import Grade
from mlx_ssd.storage import Journal, hash_path
from tests import faults
from tests.suites import stand_in


@pytest.fixture
def folder(tmp_path, monkeypatch):
    stand_in.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    with stand_in.in_place(stand_in.StandIn(tmp_path / "ran.txt")):
        yield tmp_path


def grade(*arguments, problems="problems.jsonl"):
    return CliRunner().invoke(main, ["grade", *arguments, "--problems", problems])


def facts_of(*arguments):
    result = grade(*arguments, "--json")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


def refused(*arguments):
    result = grade(*arguments)
    assert result.exit_code == 2 and result.stdout == ""
    [line] = [line for line in result.stderr.splitlines() if line.startswith("mlx-ssd: ")]
    return line


def lines_of(*answers):
    return "".join(json.dumps({"problem_id": id_, "completion": text}) + "\n" for id_, text in answers)


def ran(folder):
    return stand_in.StandIn(folder / "ran.txt").ran()


def test_json_holds_what_the_formats_say(folder):
    facts = facts_of("answers.jsonl")
    right = {i: [(i * 7 + j * 2) % 3 == 0 and (i + j) % 9 != 8 for j in range(2)] for i in range(stand_in.PROBLEMS)}
    mean = sum(map(sum, right.values())) / 2 / stand_in.PROBLEMS
    assert facts["pass_at"]["1"]["mean"] == pytest.approx(mean)
    assert facts["pass_at"]["1"]["low"] < mean < facts["pass_at"]["1"]["high"]
    assert list(facts["pass_at"]) == ["1"]  # two samples tell nothing of pass@5
    easy = [sum(right[i]) / 2 for i in right if i % 2]
    assert facts["pass_at_by_difficulty"]["easy"]["1"] == pytest.approx(sum(easy) / len(easy))
    none = sum((i + j) % 9 == 8 for i in range(stand_in.PROBLEMS) for j in range(2))
    assert facts["verdicts"]["no_code"] == facts["extraction"]["none"] == none
    assert sum(facts["verdicts"].values()) == sum(facts["extraction"].values()) == facts["samples"] == 60
    assert facts["problems"] == facts["graded_problems"] == 30 and facts["samples_per_problem"] == [2, 2]
    assert facts["suite"] == "jsonl" and facts["suite_identity"] == hash_path(folder / "problems.jsonl")
    assert facts["generations"] == {"file": "answers.jsonl", "sha256": hash_path(folder / "answers.jsonl")}
    assert facts["problems_without_completion"] == 0 and facts["version"] == __version__
    assert facts["limits"]["wall_seconds"] == 4 and facts["sandbox"]["mechanisms"] == {"stand-in": True}
    assert facts["sandbox"]["level"] == "limits"
    assert not {"completion_tokens", "finish_reasons"} & set(facts)  # without token ids there is no length


def test_pass_at_5_with_five_samples_of_each(folder):
    (folder / "five.jsonl").write_text(stand_in.answer_lines(samples=5))
    assert list(facts_of("five.jsonl")["pass_at"]) == ["1", "5"]
    (folder / "four.jsonl").write_text(stand_in.answer_lines(samples=5).rsplit("\n", 2)[0] + "\n")
    facts = facts_of("four.jsonl")
    assert list(facts["pass_at"]) == ["1"] and facts["samples_per_problem"] == [4, 5]


def test_table(folder):
    output = grade("answers.jsonl").stdout
    assert "jsonl: 30 problems, 2 samples each" in output and "pass@1 %, hard" in output
    assert "answers held no program in a fenced block" in output


def test_one_problem_has_a_mean_and_no_interval(folder):
    (folder / "one.jsonl").write_text(stand_in.answer_lines(count=1))
    facts = facts_of("one.jsonl", "--limit", "1")
    assert facts["pass_at"] == {"1": {"mean": 0.5}}
    assert "50.0" in grade("one.jsonl", "--limit", "1").stdout


def test_gzip_carriage_returns_and_surrogates(folder):
    whole = facts_of("answers.jsonl")
    text = "\ufeff" + stand_in.answer_lines().replace("\n", "\r\n")
    (folder / "answers.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    assert facts_of("answers.jsonl.gz")["verdicts"] == whole["verdicts"]
    program = "```python\ndef f(x): return x * x # \ud800\n```"
    (folder / "s.jsonl").write_text(lines_of(("p00", program), ("p00", program + "\n" + "x" * 1_000_000)))
    assert facts_of("s.jsonl", "--limit", "1")["verdicts"] == {"pass": 2}


class TestHumanEval:
    PROMPT = 'def f(x):\n    """Square."""\n'
    CHECK = "def check(f):\n    assert f(3) == 9\n"
    ROW = {"task_id": "HumanEval/0", "prompt": PROMPT, "entry_point": "f", "test": CHECK}

    def facts(self, folder, *completions, options=()):
        problem = {"id": "HumanEval/0", "prompt": self.PROMPT, "entry_point": "f", "stem": self.PROMPT}
        problem["tests"] = [{"args": [3], "expected": 9}]
        (folder / "problems.jsonl").write_text(json.dumps(problem) + "\n")
        lines = (json.dumps({"task_id": "HumanEval/0", "completion": text}) + "\n" for text in completions)
        (folder / "he.jsonl").write_text("".join(lines))
        return facts_of("he.jsonl", *options)

    def test_a_completion_goes_on_from_the_prompt(self, folder):
        found = self.facts(folder, "    return x * x", "    return x", "    # ~~~\n    return x ** 2")
        assert found["verdicts"] == {"pass": 2, "wrong": 1} and found["extraction"] == {"continued": 3}

    def test_a_fenced_program_stands_for_itself(self, folder):
        found = self.facts(folder, "```python\ndef f(x):\n    return x * x\n```")
        assert found["verdicts"] == {"pass": 1} and found["extraction"] == {"fenced": 1}

    def test_whole_programs(self, folder):
        program = "import math\n\ndef g(x):\n    return x * x # ~~~\n\ndef f(x):\n    return g(x)"
        assert self.facts(folder, program)["verdicts"] == {"wrong": 1}  # it goes on only up to the next function
        found = self.facts(folder, program, options=["--whole"])
        assert found["verdicts"] == {"pass": 1} and found["extraction"] == {"whole": 1}

    def test_the_set_itself(self, tmp_path):
        """From OpenAI's own file, with its assertions, in the real sandbox."""
        (tmp_path / "HumanEval.jsonl").write_text(json.dumps(self.ROW) + "\n")
        completions = ["    return x * x", "```python\ndef f(x):\n    return x\n```", "Sorry.\n```text\nno\n```"]
        lines = (json.dumps({"task_id": "HumanEval/0", "completion": text}) + "\n" for text in completions)
        (tmp_path / "he.jsonl").write_text("".join(lines))
        arguments = ["he.jsonl", "--suite", "humaneval", "--problems", "HumanEval.jsonl", "--json"]
        process = faults.run("grade", *(str(tmp_path / a) if "." in a else a for a in arguments))
        assert process.returncode == 0, process.stderr
        facts = json.loads(process.stdout)
        assert facts["verdicts"] == {"no_code": 1, "pass": 1, "wrong": 1}
        assert facts["extraction"] == {"continued": 1, "fenced": 1, "none": 1}
        assert "1 problems were found where its authors have 164" in process.stderr


def test_numbers(folder):
    problem = {"id": "q", "prompt": "How many?", "tests": [{"answer": "42"}]}
    (folder / "problems.jsonl").write_text(json.dumps(problem) + "\n")
    (folder / "a.jsonl").write_text(lines_of(("q", "So \\boxed{42}."), ("q", "It is 41"), ("q", "Who knows?")))
    facts = facts_of("a.jsonl")
    assert facts["verdicts"] == {"no_code": 1, "pass": 1, "wrong": 1}
    assert facts["extraction"] == {"none": 1, "number": 2}


class TestProblemsAndAnswers:
    def test_a_problem_that_is_not_in_the_suite(self, folder):
        with open(folder / "answers.jsonl", "a") as file:
            file.write(lines_of(("p99", "x"), ("p98", "x")))
        said = refused("answers.jsonl")
        assert "answers.jsonl, line 61: suite jsonl has no problem 'p99'; its first is 'p00'" in said

    def test_what_is_of_other_problems_than_the_chosen_is_left_out_and_counted(self, folder):
        result = grade("answers.jsonl", "--limit", "5", "--json")
        assert json.loads(result.stdout)["samples"] == 10
        assert "50 completions are of other problems than the 5 chosen, and were left out" in result.stderr

    def test_no_completion_of_some_problem(self, folder):
        (folder / "few.jsonl").write_text(stand_in.answer_lines(count=20))
        said = refused("few.jsonl")
        assert "10 of the 30 problems" in said and "the first is 'p20'" in said and "--partial" in said
        result = grade("few.jsonl", "--partial", "--json")
        facts, alone = json.loads(result.stdout), facts_of("few.jsonl", "--limit", "20")
        assert "10 of the 30 problems have no completion and are not in the score" in result.stderr
        assert facts["problems_without_completion"] == 10 and facts["problems"] == 20
        assert facts["pass_at"] == alone["pass_at"]  # absent, not 0

    def test_problems_without_tests(self, folder):
        problems = folder / "problems.jsonl"
        untested = json.dumps({"id": "q", "prompt": "?"}) + "\n"
        problems.write_text(stand_in.problem_lines(1) + untested)
        answers = [("p00", stand_in.answer(0, 0)), ("q", "```python\n1\n```"), ("q", "x")]
        (folder / "a.jsonl").write_text(lines_of(*answers))
        facts = facts_of("a.jsonl")
        assert facts["verdicts"] == {"no_code": 1, "pass": 1, "ungraded": 1} and facts["graded_problems"] == 1
        problems.write_text(untested)
        assert "have no tests" in refused("a.jsonl")

    def test_an_answer_longer_than_a_program_may_print(self, folder):
        problem = {"id": "p00", "prompt": "?", "tests": [{"stdin": "", "stdout": "x" * 300_000}]}
        (folder / "problems.jsonl").write_text(json.dumps(problem) + "\n")
        (folder / "a.jsonl").write_text(lines_of(("p00", "```python\nprint('x' * 300_000)\n```")))
        assert "--output-kb: a test of problem 'p00'" in refused("a.jsonl")
        assert facts_of("a.jsonl", "--output-kb", "512")["verdicts"] == {"pass": 1}

    @pytest.mark.parametrize("content, words", [("", "holds no completion"), ("[]", "a JSON array"), ("x", "line 1:")])
    def test_bad_files(self, folder, content, words):
        (folder / "bad.jsonl").write_text(content)
        assert "bad.jsonl" in refused("bad.jsonl") and words in refused("bad.jsonl")


class TestOut:
    def test_a_grade_a_line_and_nothing_run_twice(self, folder):
        facts = facts_of("answers.jsonl", "--out", "out/grades.jsonl")
        grades = Journal(folder / "out" / "grades.jsonl", Grade).read()
        assert len({grade.key for grade in grades}) == len(grades) == 60
        once = ran(folder)
        assert facts_of("answers.jsonl", "--out", "out/grades.jsonl") == facts and ran(folder) == once

    def test_more_problems_go_on_from_fewer(self, folder):
        facts_of("answers.jsonl", "--out", "g.jsonl", "--limit", "10")
        facts = facts_of("answers.jsonl", "--out", "g.jsonl")
        assert facts == facts_of("answers.jsonl", "--out", "other.jsonl", "--no-reuse")
        assert len(Journal(folder / "g.jsonl", Grade).read()) == 60

    def test_another_generations_file_is_refused(self, folder):
        facts_of("answers.jsonl", "--out", "g.jsonl")
        before = (folder / "g.jsonl").read_bytes()
        (folder / "new.jsonl").write_text(stand_in.answer_lines(samples=1))
        assert "g.jsonl holds the grades of another generations file" in refused("new.jsonl", "--out", "g.jsonl")
        said = refused("answers.jsonl", "--out", "g.jsonl", "--timeout", "9")
        assert "made with another limits.wall_seconds = 4.0, now it is 9.0" in said
        assert (folder / "g.jsonl").read_bytes() == before

    def test_other_problems_are_refused(self, folder):
        facts_of("answers.jsonl", "--out", "g.jsonl")
        (folder / "problems.jsonl").write_text(stand_in.problem_lines().replace("Square", "Cube"))
        assert "made with another suite" in refused("answers.jsonl", "--out", "g.jsonl")

    def test_somebody_elses_file_is_left_alone(self, folder):
        (folder / "g.jsonl").write_text("mine\n")
        assert "g.jsonl was not made by `mlx-ssd grade`" in refused("answers.jsonl", "--out", "g.jsonl")
        assert (folder / "g.jsonl").read_text() == "mine\n"
        assert "answers.jsonl is what is to be graded" in refused("answers.jsonl", "--out", "answers.jsonl")
        assert "is a folder" in refused("answers.jsonl", "--out", ".")

    def test_two_at_a_time(self, folder):
        with open(folder / "g.jsonl", "ab") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            assert "g.jsonl is being written by another mlx-ssd" in refused("answers.jsonl", "--out", "g.jsonl")
        facts_of("answers.jsonl", "--out", "g.jsonl")

    def test_harness_errors_are_graded_again_and_count_neither_way(self, folder):
        whole = facts_of("answers.jsonl", "--out", "g.jsonl")
        grades = folder / "g.jsonl"
        first, *rest = grades.read_text().splitlines(keepends=True)
        broken = json.loads(first) | {"verdict": "harness_error", "failed_test": None}
        grades.write_text("".join(rest) + json.dumps(broken) + "\n")
        before = len(ran(folder))
        assert facts_of("answers.jsonl", "--out", "g.jsonl") == whole and len(ran(folder)) <= before + 1


class Broken(stand_in.StandIn):
    """A sandbox that runs nothing as it should."""

    def call(self, code, entry_point, calls, limits):
        yield Outcome("harness_error", detail="no process")


def test_a_grader_that_is_not_to_be_trusted_ends_with_1(folder):
    with stand_in.in_place(Broken(folder / "ran.txt")):
        result = grade("answers.jsonl", "--json")
    assert result.exit_code == 1 and result.stdout == ""
    assert "mlx-ssd: grading was stopped" in result.stderr and "says nothing about the programs" in result.stderr


class Interrupting(stand_in.StandIn):
    """Somebody presses Ctrl-C at the 20th program."""

    def call(self, code, entry_point, calls, limits):
        if len(self.ran()) == 20:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)  # until the other thread has heard of it
        return super().call(code, entry_point, calls, limits)


def test_ctrl_c_keeps_what_is_graded_and_says_how_to_go_on(folder):
    whole = facts_of("answers.jsonl")
    (folder / "ran.txt").unlink()
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)  # as in what a shell starts with &
    try:
        with stand_in.in_place(Interrupting(folder / "ran.txt")):
            result = grade("answers.jsonl", "--out", "g.jsonl", "--workers", "1")
    finally:
        signal.signal(signal.SIGINT, ignored)
    assert result.exit_code == 130 and "interrupted; the same command goes on from there" in result.stderr
    kept = len(Journal(folder / "g.jsonl", Grade).read())
    assert 20 <= kept < 60
    assert facts_of("answers.jsonl", "--out", "g.jsonl") == whole
    assert len(Journal(folder / "g.jsonl", Grade).read()) == 60
    assert len(ran(folder)) <= len(set(ran(folder))) + 1  # the one that was interrupted


def test_the_real_sandbox_and_an_embedded_suite(tmp_path):
    """The whole command in a process of its own: programs run, one object on standard output."""
    problem = json.loads(assets.problems_path("test").read_text().splitlines()[0])
    known = {json.dumps(test["args"]): test["expected"] for test in problem["tests"]}
    define = f"def {problem['entry_point']}(*args):\n    return KNOWN[json.dumps(list(args))]"
    program = f"import json\nKNOWN = {known!r}\n{define}"
    answers = [f"```python\n{program}\n```", "```python\nopen('/etc/passwd').read()\n```", "none"]
    (tmp_path / "g.jsonl").write_text(lines_of(*((problem["id"], answer) for answer in answers)))
    process = faults.run("grade", str(tmp_path / "g.jsonl"), "--suite", "embedded", "--limit", "1", "--json")
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout)["verdicts"] == {"error": 1, "no_code": 1, "pass": 1}
