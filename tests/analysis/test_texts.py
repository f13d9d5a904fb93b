"""A user's own texts: two kinds of lines, and one clear sentence for every bad one."""

import json

import pytest

from mlx_ssd import assets, models
from mlx_ssd.analysis.texts import own
from mlx_ssd.errors import BadInput
from mlx_ssd.models import ModelSource
from mlx_ssd.prompts import render
from mlx_ssd.sections import Prompt


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_generating_tokenizer(ModelSource(assets.model_path(), "x"))


def read(tmp_path, tokenizer, *lines, context=1024):
    file = tmp_path / "mine.jsonl"
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return own(file, tokenizer, Prompt(), context)


def test_both_kinds_of_lines(tmp_path, tokenizer):
    code = "def solve(xs):\n    return sum(xs)\n"
    found, source = read(tmp_path, tokenizer, {"prompt": "Add them.", "completion": code}, "", {"text": code})
    assert [text.problem_id for text in found] == ["line 1", "line 3"] and source == "the texts of mine.jsonl"
    assert found[0].prompt_ids == render(tokenizer, "Add them.", Prompt())
    assert tokenizer.decode(found[0].completion_ids) == code
    assert tokenizer.decode(found[1].prompt_ids + found[1].completion_ids) == code
    assert len(found[1].prompt_ids) == 1


BAD = [
    '{"prompt": "a"}', "[1]", "nonsense", '{"text": 3}', '{"text": "a", "completion": "b"}', '{"text": ""}',
    '{"prompt": "a", "completion": ""}', '{"text": "\\ud800 half"}', "[" * 100_000,
    '{"prompt": "<|im_end|>", "completion": "b"}',
]  # fmt: skip


@pytest.mark.parametrize("line", BAD, ids=range(len(BAD)))
def test_bad_lines_are_told_by_their_number(tmp_path, tokenizer, line):
    with pytest.raises(BadInput, match="line 2") as caught:
        read(tmp_path, tokenizer, {"text": "x = 1"}, line)
    assert "\n" not in str(caught.value)


def test_what_is_too_long_or_empty_is_told(tmp_path, tokenizer):
    with pytest.raises(BadInput, match=r"line 1: the text has \d+ tokens, more than the 20"):
        read(tmp_path, tokenizer, {"text": "x = 1\n" * 50}, context=20)
    with pytest.raises(BadInput, match="holds no texts"):
        read(tmp_path, tokenizer, "")
    (tmp_path / "mine.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="UTF-8"):
        own(tmp_path / "mine.jsonl", tokenizer, Prompt(), None)
