"""A template that opens the thinking itself: an answer that was cut within it is none."""

import json

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from transformers import PreTrainedTokenizerFast

from mlx_ssd import assets, thinking
from mlx_ssd.grading.extract import extract_program
from mlx_ssd.prompts import render
from mlx_ssd.sections import Prompt

# As of Qwen3-4B-Thinking-2507: always; of Qwen3-4B: opened and closed where thinking is off, left to the model else.
ALWAYS = "{{ messages[-1].content }}\n{% if add_generation_prompt %}<think>\n{% endif %}"
HYBRID = "{{ messages[-1].content }}\n{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
DRAFT = "Let me try\n```python\nno = 1\n```\nthat is wrong"
ANSWER = "</think>\n```python\nyes = 1\n```"


@pytest.fixture(params=[False, True], ids=["plain marks", "special marks"])
def said(request, tmp_path):
    """As of Qwen3, whose marks of thinking are no special tokens, and as of the embedded model, whose are."""
    described = json.loads((assets.model_path() / "tokenizer.json").read_text())
    for token in described["added_tokens"]:
        token["special"] &= "think" not in token["content"] or request.param
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))

    def decoded(template, text, prompt, problem="x"):
        extra = ["<think>", "</think>"] if request.param else None
        plain = PreTrainedTokenizerFast(
            tokenizer_file=str(tmp_path / "tokenizer.json"), additional_special_tokens=extra
        )
        tokenizer = TokenizerWrapper(plain)
        tokenizer.chat_template = template
        ids = tokenizer.encode(text, add_special_tokens=False)
        (found,) = thinking.decode(tokenizer, [render(tokenizer, problem, prompt)], [ids])
        return found

    return decoded


@pytest.mark.parametrize("stem", [None, "def f():\n"])
def test_a_program_that_it_weighed_is_no_answer(said, stem):
    cut = said(ALWAYS, DRAFT, Prompt())
    assert cut == "<think>" + DRAFT and extract_program(cut, stem=stem) is None
    whole = said(ALWAYS, DRAFT + ANSWER, Prompt())
    assert extract_program(whole, stem=stem) == "yes = 1"


@pytest.mark.parametrize("enable_thinking", [False, True])
def test_where_the_prompt_leaves_it_to_the_model_nothing_is_put_before(said, enable_thinking):
    assert said(HYBRID, DRAFT, Prompt(enable_thinking=enable_thinking)) == DRAFT


def test_a_raw_prompt_opens_nothing(said):
    assert said(ALWAYS, DRAFT, Prompt(format="raw"), "What does it mean?") == DRAFT
