"""A user's own file: a prompt is enough, and a mistake is answered with its line and a line that works."""

import json
import re
import subprocess
import sys

import pytest

from mlx_ssd.assets import problems_path
from mlx_ssd.errors import BadInput
from mlx_ssd.problems import identity, read_problems, select_training
from mlx_ssd.problems.jsonl import EXAMPLE
from mlx_ssd.records import Problem
from mlx_ssd.sections import ProblemSource

PROMPTS = ["Reverse a string.", "Sum a list.", "Größter Teiler?", "a\u2028b", "Sort\nby length."]


@pytest.fixture
def own(tmp_path):
    def write(text: str | bytes, name: str = "prompts.jsonl", **settings) -> ProblemSource:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return ProblemSource(source="jsonl", path=str(path), **settings)

    return write


def lines(prompts: list[str]) -> str:
    return "".join(json.dumps({"prompt": prompt}, ensure_ascii=False) + "\n" for prompt in prompts)


class TestPromptsAlone:
    def test_five_prompts(self, own):
        problems, account = select_training(own(lines(PROMPTS)), [])
        assert [p.prompt for p in problems] == PROMPTS
        assert not any(p.tests for p in problems)
        assert account == {
            "source": "jsonl",
            "rows": 5,
            "skipped": 0,
            "beyond_limit": 0,
            "kept": 5,
            "kept_though_repeated": 0,
            "kept_though_in_tests": 0,
        }

    def test_an_id_comes_from_the_prompt_and_not_from_its_place(self, own):
        first = {p.prompt: p.id for p in read_problems(own(lines(PROMPTS)), "train")}
        again = {p.prompt: p.id for p in read_problems(own(lines(["Another.", *PROMPTS[::-1]])), "train")}
        assert first.items() <= again.items() and len(set(again.values())) == 6

    def test_repeated_prompts_are_kept_under_ids_of_their_own_and_counted(self, own):
        made = [PROMPTS[0], PROMPTS[1], PROMPTS[0], PROMPTS[0].replace(" ", "  "), PROMPTS[0]]
        problems, account = select_training(own(lines(made)), [])
        ids = [p.id for p in problems]
        assert len(set(ids)) == 5 and ids[2] == f"{ids[0]}-2" and ids[4] == f"{ids[0]}-3"
        assert account["kept"] == 5 and account["kept_though_repeated"] == 3

    def test_prompts_that_are_tests_too_are_kept_and_counted(self, own):
        tests = [Problem(id="t", prompt=" Sum  a list. "), Problem(id="u", prompt="Other.")]
        assert select_training(own(lines(PROMPTS)), tests)[1]["kept_though_in_tests"] == 1

    def test_ids_tests_blank_lines_and_a_byte_order_mark(self, own):
        line = '{"id": "x", "prompt": "p", "entry_point": "f", "tests": [{"args": [1.5, "é"], "expected": null}]}'
        problems = read_problems(own("\ufeff\n" + line + '\r\n\n{"id": null, "prompt": "q"}'), "test")
        assert problems[0] == Problem.model_validate_json(line) and problems[1].id.startswith("prompt-")


class TestParts:
    def test_skip_and_limit(self, own):
        text = lines(PROMPTS)
        for skip in range(5):
            for limit in (1, 3, 9, None):
                source = own(text, skip=skip, limit=limit)
                assert [p.prompt for p in read_problems(source, "train")] == PROMPTS[skip:][:limit]
                account = select_training(source, [])[1]
                assert account["rows"] == account["skipped"] + account["kept"] + account["beyond_limit"] == 5

    def test_skip_leaves_none(self, own):
        with pytest.raises(BadInput, match="problems.test.skip: 5 leaves none of the 5 problems"):
            read_problems(own(lines(PROMPTS), skip=5), "test")


class TestMistakes:
    @pytest.mark.parametrize(
        "text, words",
        [
            ('[{"prompt": "x"},\n {"prompt": "y"}]\n', "line 1: a JSON array; write one object a line"),
            ('\n[\n{"prompt": "x"}\n]', "line 2: a JSON array"),
            ('{"prompt": "x"}\nReverse a string.\n', "line 2: not JSON"),
            ('{\n  "prompt": "x"\n}\n', "line 1: not JSON"),
            ('"Reverse a string."\n', "line 1: not a JSON object"),
            ('{"id": "a"}\n', 'line 1: not a valid problem (prompt): it has no "prompt"'),
            ('{"text": "x"}\n', 'line 1: not a valid problem (prompt): it has no "prompt"'),
            ('{"prompt": " "}\n', "line 1: the prompt is empty"),
            (lines(PROMPTS).encode() + b"\xff\n", "line 6: not a text file in UTF-8"),
            (lines(PROMPTS).encode("utf-16"), "line 1: not a text file in UTF-8"),
            ("\n \n", "holds no problem"),
        ],
    )
    def test_the_line_and_a_line_that_works(self, own, text, words):
        source = own(text)
        with pytest.raises(BadInput) as error:
            read_problems(source, "train")
        assert source.path in str(error.value) and words in str(error.value) and EXAMPLE in str(error.value)

    def test_the_example_works(self, own):
        assert len(read_problems(own(EXAMPLE), "train")) == 1

    @pytest.mark.parametrize(
        "text, words",
        [
            ('{"prompt": "x", "answer": 1}', "it has 'answer', and its keys can be id, prompt, entry_point, tests"),
            ('{"prompt": 5}', "line 1: not a valid problem (prompt)"),
            ('{"prompt": "\\ud800"}', "line 1: not a valid problem"),
            ('{"id": 5, "prompt": "x"}', "line 1: not a valid problem (id)"),
            ('{"v": 2, "prompt": "x"}', "line 1: not a valid problem (v)"),
            ('{"prompt": "x", "tests": [{"input": 1}]}', "tests must all be"),
            ('{"id": "a", "prompt": "x"}\n{"id": "a", "prompt": "y"}', "id 'a' more than once"),
            ("[" * 100_000, "line 1: a JSON array"),
            ('{"prompt": ' + "[" * 100_000, "line 1: not JSON"),
        ],
    )
    def test_other_mistakes(self, own, text, words):
        with pytest.raises(BadInput, match=re.escape(words)):
            read_problems(own(text), "train")

    def test_no_such_file(self, tmp_path):
        for path, words in ((tmp_path, "is a folder, not a file"), (tmp_path / "x", "does not exist")):
            for use in (identity, read_problems):
                with pytest.raises(BadInput, match=f"problems.validation.path: .* {words}"):
                    use(ProblemSource(source="jsonl", path=str(path)), "validation")


class TestIdentity:
    def test_is_the_contents_and_not_the_path(self, own):
        one, moved = own(lines(PROMPTS)), own(lines(PROMPTS), name="moved.jsonl")
        assert identity(one, "train") == identity(moved, "test")
        assert identity(one, "train") != identity(own(lines(PROMPTS[:4])), "train")

    def test_of_the_embedded_splits(self):
        assert len({identity(ProblemSource(), role) for role in ("train", "validation", "test")}) == 3

    def test_reading_and_identity_import_nothing_heavy(self):
        code = (
            "import sys\n"
            "from mlx_ssd.problems import identity, read_problems, select_training\n"
            "from mlx_ssd.sections import ProblemSource\n"
            "identity(ProblemSource(source='rstar_coder'), 'train')\n"
            "select_training(ProblemSource(), read_problems(ProblemSource(), 'test'))\n"
            "print(*{'datasets', 'pyarrow', 'pandas', 'numpy', 'mlx', 'huggingface_hub'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "\n"


def test_the_embedded_problems_are_read_as_they_stand():
    for role in ("train", "validation", "test"):
        text = problems_path(role).read_text(encoding="utf-8")
        assert read_problems(ProblemSource(), role) == [Problem.model_validate_json(line) for line in text.splitlines()]
    _, account = select_training(ProblemSource(), read_problems(ProblemSource(), "test"))
    assert account["kept"] == 2000 and account["kept_though_in_tests"] == 0
