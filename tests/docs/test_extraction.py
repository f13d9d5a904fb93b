"""Odd documents: every command is found, with its mark, and nothing else is."""

import pytest

from tests.docs.commands import commands


def texts(document: str) -> list[str]:
    return [command.text for command in commands("x.md", document)]


def marks(document: str) -> list[set[str]]:
    return [set(command.marks) for command in commands("x.md", document)]


def test_indented_and_fenced_blocks_and_inline_code_in_the_order_of_the_page():
    document = "A `mlx-ssd run`.\n\n    mlx-ssd doctor   # seconds\n\n```sh\nmake   test\n```\n\n`pip install x`\n"
    assert texts(document) == ["mlx-ssd run", "mlx-ssd doctor", "make test", "pip install x"]
    assert [command.line for command in commands("x.md", document)] == [1, 3, 6, 9]


def test_a_block_goes_on_over_empty_lines_and_ends_with_the_text():
    document = "\n    make run\n\n    make test\n\nText\n    make nothing: a paragraph goes on\n"
    assert texts(document) == ["make run", "make test"]


def test_at_the_end_of_a_document_without_a_newline():
    assert texts("\n    make run") == ["make run"] and texts("```\nmake run") == ["make run"]


@pytest.mark.parametrize("language", ["", "sh", "bash", "console"])
def test_fences_with_and_without_a_language(language):
    document = f"```{language}\n$ mlx-ssd run\nmlx-ssd: what it said\nmore\n$ make test\n```\n"
    assert texts(document) == ["mlx-ssd run", "make test"]


def test_other_languages_and_other_blocks_hold_no_commands():
    assert texts("```python\nmake = 1\nmlx-ssd run\n```\n") == []
    assert texts("\n    runs/NAME/\n      recipe.yaml   made by it\n      mlx-ssd.log\n") == []
    assert texts("\n    mlx-ssd: sample was ended by SIGSEGV\n") == []


def test_a_listing_may_name_commands_in_inline_code():
    assert texts("\n    runs/NAME/\n      recipe.yaml   `mlx-ssd run` repeats it\n") == ["mlx-ssd run"]


def test_a_line_that_is_no_command_is_not_passed_over():
    with pytest.raises(ValueError, match="x.md:3: 'sudo make me' stands among commands"):
        commands("x.md", "\n    make run\n    sudo make me\n")


def test_lines_that_go_on():
    document = "\n    hf download NAME \\\n        --revision 1   # network: large\n    make run\n"
    assert texts(document) == ["hf download NAME --revision 1", "make run"] and marks(document) == [{"network"}, set()]


def test_a_hash_in_quotes_or_in_a_word_is_no_comment():
    assert texts("\n    mlx-ssd try RUN 'a # b' x#y   # c\n") == ["mlx-ssd try RUN 'a # b' x#y"]


def test_commands_of_one_line_have_its_mark():
    document = "\n    echo FROM m > Modelfile && ollama create s -f Modelfile   # needs ollama\n"
    assert texts(document) == ["echo FROM m > Modelfile", "ollama create s -f Modelfile"]
    assert marks(document) == [{"needs ollama"}] * 2
    assert commands("x.md", document)[0].words == ["echo", "FROM", "m"]


def test_marks_open_the_comment():
    document = "\n    make a  # mac, network: x\n    make b  # on a mac\n    make c  # minutes\n    make d # machine\n"
    assert marks(document) == [{"mac", "network"}, set(), {"minutes"}, set()]
    assert marks("`make a` (minutes) `make b` (in minutes) `make c`\n(minutes; of two cores) `make d` (mac)") == [
        {"minutes"}, set(), {"minutes"}, {"mac"},
    ]  # fmt: skip


def test_a_page_may_be_marked_as_a_whole():
    document = "# T\n\nEvery command here is marked minutes: see there.\n\n    make a   # mac\n"
    assert marks(document) == [{"minutes", "mac"}]


def test_what_is_set_before_a_command_belongs_to_it():
    [command] = commands("x.md", "`A_B=c mlx-ssd run`")
    assert command.text == "A_B=c mlx-ssd run" and command.words == ["mlx-ssd", "run"]
    assert texts("`MLX_SSD_TRIES=1` and `A=b C=d`") == []


def test_names_alone_and_other_code_are_no_commands():
    assert texts("`make` `mlx_lm` `mlx_lm.load(model, path)` `train.rank` `pytest`") == []
    assert texts("`python -m\nbenchmarks.x` ``make `a` ``") == ["python -m benchmarks.x", "make `a`"]
