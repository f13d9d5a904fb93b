"""gpt-oss answers in channels: what is graded is the final one, and thinking is told from it."""

import json

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from mlx_ssd import assets, models, thinking
from mlx_ssd.grading.extract import extract_code, without_thinking
from mlx_ssd.prompts import TODAY, render, template_hash
from mlx_ssd.sections import Model, Prompt
from tests.families import HARMONY_TOKENS, TEMPLATE

ANALYSIS = "<|channel|>analysis<|message|>Maybe\n```python\nno = 1\n```\n"
FINAL = "<|start|>assistant<|channel|>final<|message|>```python\nyes = 1\n```"


@pytest.fixture(scope="module")
def tokenizer():
    found = PreTrainedTokenizerFast(tokenizer_file=str(assets.model_path() / "tokenizer.json"))
    found.add_tokens([AddedToken(name, special=True) for name in HARMONY_TOKENS], special_tokens=True)
    found.chat_template = TEMPLATE
    return TokenizerWrapper(found)


@pytest.mark.parametrize(
    "text, code",
    [
        (f"{ANALYSIS}<|end|>{FINAL}<|return|>", "yes = 1"),
        (f"{ANALYSIS}<|end|>{FINAL}", "yes = 1"),  # cut right behind it
        (ANALYSIS, None),  # cut while it thought: a program that it weighed is no answer
        (f"{ANALYSIS}<|end|>", None),
        (f"{ANALYSIS}<|end|><|start|>assistant<|channel|>commentary<|message|>I call it.<|end|>{FINAL}", "yes = 1"),
        (f"{ANALYSIS}{FINAL.removeprefix('<|start|>assistant')}<|return|>", "yes = 1"),  # an end was left out
        (f"<|channel|>final <|constrain|>x<|message|>y{FINAL}<|return|>", "yes = 1"),
        (f"{ANALYSIS}<|end|>{FINAL.replace('final', 'final <|constrain|>python')}<|return|>", "yes = 1"),
        ("```python\nplain = 1\n```<|return|>", "plain = 1"),  # no channel at all
    ],
)
def test_only_the_final_channel_is_graded(tokenizer, text, code):
    ids = tokenizer.encode(text, add_special_tokens=False)
    (said,) = thinking.decode(tokenizer, [[5]], [ids])
    assert extract_code(said) == code
    assert "<|" not in said


def test_other_channels_are_kept_as_thinking(tokenizer):
    ids = tokenizer.encode(f"{ANALYSIS}<|end|>{FINAL}<|return|>", add_special_tokens=False)
    (said,) = thinking.decode(tokenizer, [[5]], [ids])
    assert "no = 1" in said and "no = 1" not in without_thinking(said)


def test_other_models_are_decoded_as_ever():
    plain = models.load_tokenizer(models.locate(Model()))
    ids = plain.encode("a <|channel|>final<|message|> b", add_special_tokens=False)
    expected = plain.batch_decode([ids, ids[:3]], skip_special_tokens=True)
    assert thinking.decode(plain, [[5], [6]], [ids, ids[:3]]) == expected


def test_the_effort_and_one_day_for_ever_stand_in_the_prompt(tokenizer):
    def text(**settings):
        return tokenizer.decode(render(tokenizer, "Hi", Prompt(**settings)))

    assert "Reasoning: medium" in text() and "Reasoning: high" in text(reasoning_effort="high")
    assert f"Current date: {TODAY:%Y-%m-%d}" in text()  # not today: a run goes on tomorrow
    assert text(system="Be brief.").count("Be brief.") == 1
    hashes = {template_hash(tokenizer, Prompt(reasoning_effort=effort)) for effort in (None, "low", "high")}
    assert len(hashes) == 3


def test_a_prompt_without_effort_has_the_settings_it_had_before():
    """Fingerprints of finished runs stay what they were."""
    assert list(Prompt().settings()) == ["format", "system", "enable_thinking"]
    assert Prompt(reasoning_effort="low").settings()["reasoning_effort"] == "low"
    assert json.loads(Prompt().model_dump_json())["reasoning_effort"] is None
