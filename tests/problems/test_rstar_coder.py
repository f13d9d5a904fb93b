"""rstar_coder: every row accounted for, nothing that a test problem gives away, streamed."""

import random
import re

import pytest

from mlx_ssd.errors import BadInput
from mlx_ssd.problems import identity, read_problems, select_training
from mlx_ssd.problems.decontaminate import normal_form
from mlx_ssd.problems.rstar_coder import COLUMNS, REVISION
from mlx_ssd.records import Problem
from mlx_ssd.sections import ProblemSource
from tests.problems.rows import STARTER, judged, rows, shuffled, statement, write_jsonl

ROWS = rows()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_jsonl(tmp_path_factory.mktemp("rstar") / "rows.jsonl", ROWS)


def source(path, **settings) -> ProblemSource:
    return ProblemSource(source="rstar_coder", path=str(path), **settings)


def counts(account: dict) -> dict:
    return {key: value for key, value in account.items() if isinstance(value, int) and key != "compared_with"}


# 200 rows. Text: 8 blank; 40 + 10 + 1 repeat a statement; 6 + 3 + 1 leak.
# Passed: 40 + 20 + 15 rows not passed; 20 + 10 + 1 repeat a passed statement; 4 repeat an id.
EXACT = {
    ("text", 13): dict(blank=8, not_passed=0, duplicate=51, same_question=0, leaked=10, kept=131),
    ("text", 0): dict(blank=8, not_passed=0, duplicate=51, same_question=0, leaked=0, kept=141),
    ("passed", 13): dict(blank=8, not_passed=75, duplicate=31, same_question=4, leaked=10, kept=72),
    ("passed", 0): dict(blank=8, not_passed=75, duplicate=31, same_question=4, leaked=0, kept=82),
}


class TestSelection:
    @pytest.mark.parametrize("select, decontaminate", EXACT)
    def test_every_row_is_accounted_for(self, file, select, decontaminate):
        assert len(ROWS) == 200
        problems, account = select_training(source(file, select=select, decontaminate=decontaminate), judged())
        assert counts(account) == {"rows": 200, "skipped": 0, **EXACT[select, decontaminate]}
        assert account["compared_with"] == (len(judged()) if decontaminate else 0)
        assert len(problems) == account["kept"]
        assert len({problem.id for problem in problems}) == len(problems)
        assert not any(problem.tests for problem in problems)

    def test_which_problems_leak(self, file):
        everything, _ = select_training(source(file, decontaminate=0), judged())
        clean, _ = select_training(source(file), judged())
        leaked = {p.id for p in everything} - {p.id for p in clean}
        assert leaked == {*(f"seed_e{i}" for i in range(6)), "seed_g0", "seed_g1", "seed_g2", "seed_k0"}

    def test_a_problem_is_solved_when_any_of_its_rows_is(self, file):
        passed = {p.id for p in read_problems(source(file, select="passed"), "train")}
        assert {f"seed_b{i}" for i in range(20)} <= passed
        assert not {f"seed_a{i}" for i in range(40)} & passed

    def test_only_selection_by_passed_says_that_it_peeks(self, file):
        assert "peeks at correctness" in select_training(source(file, select="passed"), [])[1]["note"]
        assert "note" not in select_training(source(file), [])[1]

    def test_nothing_is_compared_without_test_problems(self, file):
        assert select_training(source(file), [])[1]["leaked"] == 0
        assert len(read_problems(source(file), "test")) == 141

    @pytest.mark.parametrize("select", ["text", "passed"])
    def test_the_order_of_rows_changes_no_count(self, tmp_path, file, select):
        first, account = select_training(source(file, select=select), judged())
        for seed in range(10):
            other = write_jsonl(tmp_path / "rows.jsonl", shuffled(ROWS, seed))
            problems, again = select_training(source(other, select=select), judged())
            assert again == account
            if select == "text":  # with `passed` the first of two statements under one id is taken
                assert {normal_form(p.prompt) for p in problems} == {normal_form(p.prompt) for p in first}

    def test_the_first_row_of_a_statement_is_taken(self, file):
        by_id = {p.id: p.prompt for p in read_problems(source(file), "train")}
        assert statement("b", 0) in by_id["seed_b0"]
        assert [p.id for p in read_problems(source(file, limit=2), "train")] == ["seed_a0", "seed_a1"]


class TestPrompt:
    def test_starter_code_in_a_fenced_block_else_a_whole_program(self, file):
        by_id = {p.id: p.prompt for p in read_problems(source(file), "train")}
        function, program = by_id["seed_n0"], by_id["seed_a0"]
        assert function.startswith(statement("n", 0)) and f"```python\n{STARTER.rstrip()}\n```" in function
        assert program.startswith(statement("a", 0)) and "standard input" in program and "```" not in program

    def test_blank_starter_code_is_none(self, tmp_path):
        made = [{**ROWS[i], "starter_code": blank} for i, blank in enumerate(("", " \n", None))]
        for problem in read_problems(source(write_jsonl(tmp_path / "x.jsonl", made)), "train"):
            assert "standard input" in problem.prompt


class TestParts:
    def test_skip_and_limit_cut_one_set_into_two(self, file):
        everything = [p.id for p in read_problems(source(file), "train")]
        test = [p.id for p in read_problems(source(file, limit=40), "test")]
        train, account = select_training(source(file, skip=40), [])
        assert test == everything[:40] and [p.id for p in train] == everything[40:]
        assert (account["skipped"], account["kept"]) == (40, 101)

    def test_counts_add_up_when_reading_stops(self, file):
        for skip, limit in ((0, 5), (45, 10), (100, 31), (130, 20)):
            _, account = select_training(source(file, skip=skip, limit=limit), judged())
            assert account["rows"] == sum(counts(account).values()) - account["rows"]
            assert account["kept"] == min(limit, 131 - skip)
            full = account["skipped"] + account["kept"] == skip + limit
            assert (account["read"] == "until enough were selected") == full

    def test_reading_stops_once_enough_are_selected(self, tmp_path):
        write_jsonl(tmp_path / "0.jsonl", ROWS[:50])
        (tmp_path / "1.jsonl").write_text("broken\n")
        _, account = select_training(source(tmp_path, skip=10, limit=20), judged())
        assert (account["rows"], account["kept"]) == (30, 20)
        with pytest.raises(BadInput, match=r"1\.jsonl, line 1: not a JSON object"):
            select_training(source(tmp_path), judged())

    def test_a_split_tested_on_itself_is_no_training_set(self, file):
        part = source(file, limit=150)
        with pytest.raises(BadInput, match=r"leaves no problem \(.*141 leaked\)"):
            select_training(part, read_problems(part, "test"))

    def test_skip_beyond_the_end(self, file):
        with pytest.raises(BadInput, match=r"problems.train: rstar_coder leaves no problem \(.*131 skipped\)"):
            select_training(source(file, skip=200), judged())


def brute_force_leaks(text: str, against: list[str], n: int) -> bool:
    def split(text):
        return [word for word in re.split(r"[^a-z0-9]+", text.lower()) if word]

    mine = split(text)
    for other in map(split, against):
        if mine == other:
            return True
        for i in range(len(mine) - n + 1):
            for j in range(len(other) - n + 1):
                if mine[i : i + n] == other[j : j + n]:
                    return True
    return False


@pytest.mark.parametrize("n", [1, 2, 5, 13])
def test_kept_shares_no_ngram_and_leaked_does(tmp_path, n):
    rng = random.Random(n)

    def text() -> str:
        words = [rng.choice("abcd") + rng.choice(["", "!", ", ", "\n"]) for _ in range(rng.randint(1, 2 * n + 4))]
        return " ".join(rng.choice([str.upper, str.lower])(word) for word in words)

    stream = [rng.choice("abcd") for _ in range(4 * n)]
    against = [" ".join(stream), *(text() for _ in range(2 if n > 1 else 0)), text()]
    made = [{**ROWS[0], "question_id": f"q{i}", "question": text()} for i in range(150)]
    for i in range(0, 150, 5):  # longer runs are too rare by chance
        start = rng.randrange(len(stream))
        made[i]["question"] += " z " + " ".join(stream[start : start + rng.randint(1, 2 * n)])
    if n == 1:
        against = ["a", "b c"]
        made.append({**ROWS[0], "question_id": "only d", "question": "d D d"})
    file = write_jsonl(tmp_path / "rows.jsonl", made)
    problems, account = select_training(
        source(file, decontaminate=n), [Problem(id=str(i), prompt=text) for i, text in enumerate(against)]
    )
    kept = {problem.id for problem in problems}
    unique = {normal_form(row["question"]): row for row in reversed(made)}.values()
    leaks = {row["question_id"] for row in unique if brute_force_leaks(row["question"], against, n)}
    assert kept == {row["question_id"] for row in unique} - leaks
    assert account["leaked"] == len(leaks) > 0 and kept


class TestIdentity:
    def test_of_the_hub_is_its_commit(self):
        hub = ProblemSource(source="rstar_coder")
        assert identity(hub, "train") == f"microsoft/rStar-Coder@{REVISION}"
        assert re.fullmatch("[0-9a-f]{40}", REVISION)
        other = ProblemSource(source="rstar_coder", revision="abc")
        assert identity(other, "train") == "microsoft/rStar-Coder@abc"

    def test_of_a_copy_is_its_contents_not_its_path(self, file, tmp_path):
        folder = tmp_path / "copy"
        folder.mkdir()
        moved = write_jsonl(folder / "other-name.jsonl", ROWS)
        assert identity(source(moved), "train") == identity(source(file), "train") == identity(source(folder), "train")
        (folder / "README.md").write_text("not data")
        assert identity(source(folder), "train") == identity(source(file), "train")
        moved.write_text(moved.read_text() + "\n")
        assert identity(source(moved), "train") != identity(source(file), "train")

    def test_of_a_folder_knows_the_order_of_its_files(self, tmp_path):
        for name, parts in (("x", (0, 1)), ("y", (1, 0))):
            (tmp_path / name).mkdir()
            for i, part in enumerate(parts):
                write_jsonl(tmp_path / name / f"{i}.jsonl", ROWS[part : part + 1])
        assert identity(source(tmp_path / "x"), "train") != identity(source(tmp_path / "y"), "train")


class TestBadCopies:
    @pytest.mark.parametrize(
        "change, words",
        [
            ({"question": 5}, "line 1: question is 5, not a str"),
            ({"is_passed": "False"}, "line 1: is_passed is 'False', not a bool"),
        ],
    )
    def test_types(self, tmp_path, change, words):
        file = write_jsonl(tmp_path / "x.jsonl", [{**ROWS[0], **change}])
        with pytest.raises(BadInput, match=re.escape(words)):
            select_training(source(file, select="passed"), [])

    @pytest.mark.parametrize("name", [*COLUMNS, "is_passed"])
    def test_missing_column(self, tmp_path, name):
        made = [{key: value for key, value in row.items() if key != name} for row in ROWS]
        file = write_jsonl(tmp_path / "x.jsonl", made)
        with pytest.raises(BadInput, match=f"line 1: no {name}"):
            select_training(source(file, select="passed"), [])
        if name == "is_passed":  # only `passed` looks at it
            assert select_training(source(file), [])[1]["kept"] == 141

    @pytest.mark.parametrize("text, words", [("[1]\n", "line 1: no question_id"), ("{\n", "line 1: not a JSON object")])
    def test_not_rows(self, tmp_path, text, words):
        (tmp_path / "x.jsonl").write_text(text)
        with pytest.raises(BadInput, match=words):
            select_training(source(tmp_path / "x.jsonl"), [])

    def test_not_utf8(self, tmp_path):
        (tmp_path / "x.jsonl").write_text("é", encoding="latin-1")
        with pytest.raises(BadInput, match="not a text file in UTF-8"):
            select_training(source(tmp_path / "x.jsonl"), [])

    def test_no_such_path_and_nothing_in_it(self, tmp_path):
        for path in (tmp_path, tmp_path / "nowhere", tmp_path / "nowhere.jsonl"):
            for use in (identity, read_problems):
                with pytest.raises(BadInput, match=r"problems.test.path: .* is neither a .parquet or .jsonl file"):
                    use(source(path), "test")

    def test_nothing_but_blank_rows(self, tmp_path):
        file = write_jsonl(tmp_path / "x.jsonl", [{**ROWS[0], "question": " "}])
        with pytest.raises(BadInput, match=r"leaves no problem \(1 rows, 1 blank\)"):
            select_training(source(file), [])
