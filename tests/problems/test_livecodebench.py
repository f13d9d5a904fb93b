"""livecodebench: the paper's windows, tests unpacked without unpickling, verdicts worked out by hand."""

import base64
import json
import os
import pickle
import re
import struct
import tracemalloc
import warnings
import zlib

import pytest

from mlx_ssd.budget.work import LENGTHS
from mlx_ssd.controls import suite_name
from mlx_ssd.errors import BadInput
from mlx_ssd.problems import contest_tests, identity, livecodebench, read_problems, select_training
from mlx_ssd.problems.livecodebench import RELEASES, REVISION, prompt
from mlx_ssd.recipe import Recipe
from mlx_ssd.sections import ProblemSource
from tests import hub
from tests.problems.contests import STARTER, compressed, function_row, functional, packed, row, stdin, write


def refused(read, *rows) -> str:
    with pytest.raises(BadInput) as error:
        read(*rows)
    return str(error.value)


class TestRows:
    def test_standard_input_public_tests_first(self, read):
        (problem,) = read(row("abc387_b"))
        assert (problem.id, problem.difficulty, problem.entry_point) == ("abc387_b", "easy", None)
        assert problem.tests == [{"stdin": "1\n", "stdout": "2\n"}, {"stdin": "3\n", "stdout": "4\n"}]

    def test_functional(self, read):
        (problem,) = read(function_row("3600", ('[1, 2]\n"a b"', "3"), ("[]\r\n\nnull\n", "[true, 0.5]")))
        assert problem.entry_point == "f"
        assert problem.tests == [
            {"args": [[1, 2], "a b"], "expected": 3},
            {"args": [[], None], "expected": [True, 0.5]},
        ]

    def test_private_tests_in_plain_json(self, read):
        (problem,) = read(row("x", private_test_cases=" " + json.dumps(stdin(("5", "6")))))
        assert problem.tests[1] == {"stdin": "5", "stdout": "6"}

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_every_protocol_of_pickle(self, read, protocol):
        tests = stdin(("é\\u0041\n\x00", "x" * 70_000))  # beyond a frame
        (problem,) = read(row("x", private_test_cases=packed(tests, protocol)))
        assert problem.tests[1] == {"stdin": "é\\u0041\n\x00", "stdout": "x" * 70_000}

    def test_a_real_one(self, read):
        """Problem 1873_A of the data set, as Kaggle's benchmark examples show it (Apache-2.0)."""
        real = (
            "eJxrYJmaz8gABhEZQEZ0tVJmXkFpiZKVgpJhTF5iUnJMnpKOglJ+aQlUNNI1GCJUklpcUlJZkAoSLC5JycxTqtVRQNJuDNWOILAYhCCIMdI0"
            "Ji85MQloWjKQSE5KjMlLSgSam5SciG64nz+y2WACJESMJWYY7ibFG8T5KnaKHgAcinnp"
        )
        (problem,) = read(row("1873_A", private_test_cases=real))
        assert problem.tests[1:] == [
            {"stdin": "1\nabc\n", "stdout": "YES\n"},
            {"stdin": "3\nabc\nabc\nabc\n", "stdout": "YES\n" * 3},
            {"stdin": "5\ncab\nacb\ncba\nbac\nbca\n", "stdout": "NO\nYES\nYES\nYES\nNO\n"},
            {"stdin": "6\n" + "abc\n" * 6, "stdout": "YES\n" * 6},
        ]

    def test_pickled_bytes(self, read):
        data = pickle.dumps(json.dumps(stdin(("é", "6")), ensure_ascii=False).encode(), protocol=4)
        assert read(row("x", private_test_cases=compressed(data)))[0].tests[1]["stdin"] == "é"


class TestPrompt:
    def test_a_program(self, read):
        (problem,) = read(row("x"))
        assert problem.prompt.startswith("### Question:\nStatement of x: {braces} stay.\n\n### Format: Read the inputs")
        assert problem.prompt.endswith(
            "writes output to STDOUT.\n```python\n# YOUR CODE HERE\n```\n\n"
            "### Answer: (use the provided format with backticks)\n\n"
        )

    def test_a_function(self):
        assert f"enclose your code within delimiters.\n```python\n{STARTER}\n```\n\n### Answer" in prompt("S", STARTER)
        assert "stdin" not in prompt("S", STARTER)


BORDERS = [  # contest date, in v5, in v6
    ("2024-07-31T23:59:59", False, False),
    ("2024-08-01T00:00:00", True, False),
    ("2025-01-31T23:59:59", True, False),
    ("2025-02-01T00:00:00", True, True),
    ("2025-02-28T23:59:59", True, True),
    ("2025-03-01", False, True),
    ("2025-05-31T23:59:59", False, True),
    ("2025-06-01T00:00:00", False, False),
]


class TestWindows:
    @pytest.mark.parametrize("release, column", [("v5", 1), ("v6", 2)])
    def test_borders(self, read, release, column):
        rows = [row(border[0], border[0]) for border in BORDERS]
        inside = [border[0] for border in BORDERS if border[column]]
        assert [problem.id for problem in read(*rows, release=release)] == inside

    @pytest.mark.parametrize("release", RELEASES)
    def test_the_papers_count_is_silent_and_another_one_warns(self, tmp_path, release):
        wanted = RELEASES[release].problems
        assert wanted == {"v6": 131, "v5": 374}[release]
        rows = [row(str(i), "2025-02-10", private_test_cases="[]") for i in range(wanted)]
        source = ProblemSource(source="livecodebench", path=str(tmp_path / "x"), release=release, limit=3)
        write(tmp_path / "x", *rows)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(read_problems(source, "test")) == 3
        write(tmp_path / "x", *rows[:-1])
        with pytest.warns(UserWarning, match=f"^LiveCodeBench {release}, .*: {wanted - 1} problems .* has {wanted},"):
            assert len(read_problems(source, "test")) == 3

    def test_validation_and_test_problems_do_not_overlap(self):
        def problems(validation, test):
            sets = {"problems.validation": validation, "problems.test": test}
            return Recipe.parse("", "r", {key: {"source": "livecodebench", **part} for key, part in sets.items()})

        problems({"release": "v6", "limit": 40}, {"release": "v6", "skip": 40})
        with pytest.raises(BadInput, match="share the contests of February 2025"):
            problems({"release": "v5"}, {"release": "v6"})


class TestParts:
    ROWS = [row(f"{level}{i}", difficulty=level) for i in range(4) for level in ("easy", "medium", "hard")]

    def test_difficulty_then_skip_then_limit(self, read):
        hard = [problem.id for problem in read(*self.ROWS, difficulty="hard")]
        assert hard == ["hard0", "hard1", "hard2", "hard3"]
        assert [problem.id for problem in read(*self.ROWS, difficulty="hard", skip=1, limit=2)] == hard[1:3]

    def test_every_row_is_accounted_for(self, tmp_path):
        file = write(tmp_path / "x", *self.ROWS, row("old", "2023-05-01"))
        source = ProblemSource(source="livecodebench", path=str(file), difficulty="easy", skip=1, limit=2)
        problems, account = select_training(source, [])
        note = account.pop("note")
        assert "12 problems" in note and len(problems) == 2
        assert account == {
            "source": "livecodebench", "release": "v6", "rows": 13, "outside_window": 1, "other_difficulty": 8,
            "skipped": 1, "beyond_limit": 1, "kept": 2, "kept_though_repeated": 0, "kept_though_in_tests": 0,
        }  # fmt: skip

    def test_only_what_is_chosen_is_unpacked(self, read):
        broken = [row(f"b{i}", private_test_cases="broken") for i in range(3)]
        rows = [broken[0], row("good"), broken[1], row("hard", difficulty="hard", private_test_cases="broken")]
        assert [problem.id for problem in read(*rows, skip=1, limit=1)] == ["good"]
        assert "problem 'b0'" in refused(read, *rows)

    def test_nothing_left(self, tmp_path, read):
        with pytest.raises(BadInput, match=r"problems.test: livecodebench v6 leaves no problem \(8 other_d.*, 4 skip"):
            read(*self.ROWS, difficulty="hard", skip=9)

    def test_difficulty_of_a_users_own_file(self, tmp_path):
        file = tmp_path / "own.jsonl"
        lines = [{"prompt": f"p{i}", **({"difficulty": level} if level else {})} for i, level in enumerate(LEVELS)]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        source = ProblemSource(source="jsonl", path=str(file), difficulty="hard", skip=1)
        problems, account = select_training(source, [])
        assert [problem.prompt for problem in problems] == ["p4"]
        assert (account["rows"], account["other_difficulty"], account["skipped"], account["kept"]) == (5, 3, 1, 1)
        with pytest.raises(BadInput, match="problems.train.difficulty: none of the 5 problems is medium"):
            select_training(source.model_copy(update={"difficulty": "medium"}), [])

    def test_rstar_coder_knows_no_difficulty(self):
        with pytest.raises(ValueError, match="does not say how difficult"):
            ProblemSource(source="rstar_coder", difficulty="easy")


LEVELS = ("hard", "easy", None, "unheard of", "hard")


class Command:
    def __reduce__(self):
        return os.system, ("touch hacked",)


class Huge:
    def __reduce__(self):
        return bytearray, (1 << 40,)


def spoilt(text: str, change) -> str:
    return compressed(change(zlib.decompress(base64.b64decode(text))))


GOOD = packed(stdin(("3\n", "4\n")))
HOSTILE = [
    (compressed(pickle.dumps(Command())), r"a pickle with STACK_GLOBAL, where only one text may be; it is not loaded"),
    (compressed(pickle.dumps(Command(), protocol=0)), "a pickle with GLOBAL,"),
    (compressed(pickle.dumps(Huge())), "a pickle with STACK_GLOBAL,"),
    (compressed(pickle.dumps([json.dumps(stdin(("3", "4")))])), "a pickle with EMPTY_LIST,"),
    (compressed(b"\x80\x04\x8c\x01aQ."), "a pickle with BINPERSID,"),
    (compressed(b"\x80\x04\x82\x01."), "a pickle with EXT1,"),
    (compressed(b"\x80\x04\x8c\x01a\x8c\x01b."), "a pickle of something else than one text"),
    (compressed(b"\x80\x04."), "a pickle of something else than one text"),
    (spoilt(GOOD, lambda data: data + b"\x8c"), "a pickle of something else than one text"),
    (spoilt(GOOD, lambda data: data[:-5]), "are not a pickle of a text; download the file again"),
    (compressed(b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"."), "are not a pickle of a text"),
    (compressed(pickle.dumps(b"\xff\xfe", protocol=4)), "are not a pickle of a text"),
    (compressed(pickle.dumps("{", protocol=4)), "the private tests: not JSON"),
    (compressed(pickle.dumps("{}", protocol=4)), "the private tests are not a JSON list"),
    (GOOD[:-8], "are cut off"),
    (GOOD[:-3], "are neither JSON nor base64"),
    ("!" + GOOD, "are neither JSON nor base64"),
    ("é", "are neither JSON nor base64"),
    ("", "are cut off"),
    (base64.b64encode(b"no zlib").decode(), "are not compressed with zlib"),
]


class TestHostileTests:
    @pytest.mark.parametrize("private, words", HOSTILE)
    def test_refused_with_the_problems_name(self, read, tmp_path, monkeypatch, private, words):
        monkeypatch.chdir(tmp_path)
        said = refused(read, row("first"), row("bad one", private_test_cases=private))
        assert "problems.test: rows.jsonl, line 2: problem 'bad one'" in said and words in said
        assert not (tmp_path / "hacked").exists()

    def test_the_hostile_pickle_would_have_run(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        pickle.loads(pickle.dumps(Command()))
        assert (tmp_path / "hacked").exists()

    def test_a_memo_index_takes_no_memory(self, read):
        """The C Unpickler grows its memo to the index: a gigabyte for these bytes, classes or not."""
        text = json.dumps(stdin(("3", "4"))).encode()
        data = b"\x80\x04X" + struct.pack("<I", len(text)) + text + b"r" + struct.pack("<I", 1 << 26) + b"."
        tracemalloc.start()
        try:
            (problem,) = read(row("x", private_test_cases=compressed(data)))
            assert tracemalloc.get_traced_memory()[1] < 10_000_000
        finally:
            tracemalloc.stop()
        assert problem.tests[1] == {"stdin": "3", "stdout": "4"}

    def test_a_bomb_is_not_unpacked(self, read, monkeypatch):
        assert contest_tests.LARGEST == 1 << 30
        monkeypatch.setattr(contest_tests, "LARGEST", 1 << 20)
        bomb = compressed(b"\x80\x04X" + struct.pack("<I", 64 << 20) + b" " * (64 << 20) + b".")
        assert len(bomb) < 100_000
        tracemalloc.start()
        try:
            said = refused(read, row("boom", private_test_cases=bomb))
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()
        assert "problem 'boom': the private tests unpack to more than 1,048,576 bytes; they are not read" in said

    def test_what_just_fits_is_unpacked(self, read, monkeypatch):
        size = len(zlib.decompress(base64.b64decode(GOOD)))
        monkeypatch.setattr(contest_tests, "LARGEST", size)
        assert len(read(row("x", private_test_cases=GOOD))[0].tests) == 2
        monkeypatch.setattr(contest_tests, "LARGEST", size - 1)
        assert "unpack to more than" in refused(read, row("x", private_test_cases=GOOD))


class TestMistakes:
    @pytest.mark.parametrize(
        "changes, words",
        [
            ({"metadata": "{}"}, "has functional tests, but its metadata names no func_name to call"),
            ({"metadata": '{"func_name": null}'}, "names no func_name to call"),
            ({"metadata": "[]"}, "its metadata is not a JSON object"),
            ({"metadata": "{"}, "its metadata is not a JSON object"),
            ({"public_test_cases": json.dumps(stdin(("1", "2")))}, "more than one testtype (functional, stdin)"),
            ({"public_test_cases": "[]", "private_test_cases": "[]"}, "has no tests"),
            ({"public_test_cases": '[{"input": "1"}]'}, "the public tests: number 0 of them is not {input, output"),
            ({"public_test_cases": '[{"input": 1, "output": "2", "testtype": "stdin"}]'}, "number 0 of them is not"),
            ({"public_test_cases": json.dumps(functional(("a=b", "1")))}, "test 0: argument 0: not JSON"),
            ({"private_test_cases": packed(functional(("1", "1"), ("1\n[2", "1")))}, "test 2: argument 1: not JSON"),
            ({"private_test_cases": packed(functional(("1", "True")))}, "test 1: the output: not JSON"),
            ({"private_test_cases": packed(functional(("[" * 10**5, "1")))}, "test 1: argument 0: not JSON"),
        ],
    )
    def test_of_a_function_name_problem_and_test(self, read, changes, words):
        said = refused(read, function_row("3600", ("1", "1"), ("2", "2")) | changes)
        assert "line 1: problem '3600'" in said and words in said and len(said) < 300

    def test_unknown_testtype(self, read):
        tests = [{"input": "1", "output": "2", "testtype": "interactive"}]
        changes = {"public_test_cases": json.dumps(tests), "private_test_cases": "[]"}
        assert "problem 'x': testtype 'interactive' is not known" in refused(read, row("x", **changes))

    @pytest.mark.parametrize("name", livecodebench.COLUMNS)
    def test_missing_column(self, read, name):
        assert f"line 1: {name} is missing or no text" in refused(read, row("x", **{name: None}))

    @pytest.mark.parametrize("date", ["", "yesterday", "2025-13-01"])
    def test_no_date(self, read, date):
        assert f"line 1: contest_date {date!r} is not a date" in refused(read, row("x", date))

    def test_twice(self, read):
        assert "line 2: problem 'x' is there twice" in refused(read, row("x"), row("x"))

    @pytest.mark.parametrize("text", [b"{\n", b"[1]\n", b'"x"\n', b"[" * 10**5])
    def test_no_row(self, tmp_path, text):
        (tmp_path / "x.jsonl").write_bytes(text)
        with pytest.raises(BadInput, match="x.jsonl, line 1: not a JSON object"):
            read_problems(ProblemSource(source="livecodebench", path=str(tmp_path / "x.jsonl")), "test")

    def test_not_utf8(self, tmp_path):
        (tmp_path / "x.jsonl").write_bytes(b"\xff\n")
        with pytest.raises(BadInput, match="x.jsonl is not a text file in UTF-8"):
            read_problems(ProblemSource(source="livecodebench", path=str(tmp_path / "x.jsonl")), "test")


class TestFiles:
    def test_of_a_folder_only_what_the_release_needs(self, tmp_path):
        write(tmp_path / "test6.jsonl", row("new"), row("february", "2025-02-01"))
        (tmp_path / "test5.jsonl").write_text("broken\n")
        (tmp_path / "other.jsonl").write_text("broken\n")
        source = ProblemSource(source="livecodebench", path=str(tmp_path))
        assert [problem.id for problem in read_problems(source, "test")] == ["new", "february"]
        older = source.model_copy(update={"release": "v5"})
        with pytest.raises(BadInput, match=r"problems.test.path: .* nor a folder with test3.jsonl, which release v5"):
            read_problems(older, "test")
        for number in (3, 4, 5):
            write(tmp_path / f"test{number}.jsonl", row(f"old{number}", "2024-09-01"))
        assert [problem.id for problem in read_problems(older, "test")] == ["old3", "old4", "old5", "february"]

    @pytest.mark.parametrize("use", [identity, read_problems])
    def test_no_such_path(self, tmp_path, use):
        with pytest.raises(BadInput, match="neither a JSONL file of livecodebench/code_generation_lite nor a folder"):
            use(ProblemSource(source="livecodebench", path=str(tmp_path / "absent")), "test")

    def test_identity(self, tmp_path):
        hub_source = ProblemSource(source="livecodebench")
        assert identity(hub_source, "test") == f"livecodebench/code_generation_lite@{REVISION}"
        assert re.fullmatch("[0-9a-f]{40}", REVISION)
        file = write(tmp_path / "test6.jsonl", row("x"))
        one, folder = (ProblemSource(source="livecodebench", path=str(path)) for path in (file, tmp_path))
        before = identity(one, "test")
        assert before == identity(folder, "test")
        write(file, row("y"))
        assert identity(one, "test") == identity(folder, "test") != before

    def test_known_to_file_names_and_budgets(self):
        assert suite_name(ProblemSource(source="livecodebench", release="v5"), "test") == "livecodebench-v5-test"
        assert "livecodebench" in LENGTHS


SETUP = f"""
source = ProblemSource(source='livecodebench', revision={hub.COMMIT!r})
problems = Problems(test=source)
"""


def test_downloads_are_confirmed_and_only_what_is_needed_is_fetched(tmp_path, python):
    files = tmp_path / "files"
    files.mkdir()
    for number in (3, 4, 5, 6):
        write(files / f"test{number}.jsonl", row(f"problem{number}"))
    (files / "code_generation_lite.py").write_text("raise SystemExit('the loader script ran')")
    ask = SETUP + "try: confirm_downloads(problems, {})\nexcept BadInput as error: print(error)"
    read = "print([problem.id for problem in read_problems(source, 'test')])"
    with hub.serve("datasets/livecodebench/code_generation_lite", files) as (address, fetched):
        said = python(ask.format("None"), address).stdout
        assert said.startswith("LiveCodeBench v6: 0.0 MB to download from the hub, once; confirm it with --yes")
        said = python(ask.format("lambda question: False"), address).stdout
        assert said == "LiveCodeBench v6 was not downloaded; problems.test.path takes files on this disk too\n"
        assert fetched == []
        process = python(f"{SETUP}confirm_downloads(problems, lambda question: True)\n{read}", address)
        assert process.stdout == "['problem6']\n", process.stderr
        assert "LiveCodeBench v6, contests of 2025-02 to 2025-05: 1 problems were found" in process.stderr
        assert fetched == ["test6.jsonl"]
    process = python(ask.format("None") + f"\n{read}")  # it is here: nothing to ask, and no network needed
    assert process.stdout == "['problem6']\n", process.stderr
    older = read.replace("source", "source.model_copy(update={'release': 'v5'})")
    process = python(f"{SETUP}try: {older}\nexcept BadInput as error: print(error)")
    assert "problems.test: cannot get test3.jsonl of livecodebench/code_generation_lite (" in process.stdout
    assert "check the network" in process.stdout and process.stdout.count("\n") == 1
