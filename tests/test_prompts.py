"""One rendering for sampling, training and evaluation; it is the model's own template."""

import pytest
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers import models as token_models
from transformers import PreTrainedTokenizerFast

from mlx_ssd import models
from mlx_ssd.errors import BadInput
from mlx_ssd.prompts import render, template_hash
from mlx_ssd.sections import SYSTEM_MESSAGE, Model, Prompt


@pytest.fixture(scope="module")
def tokenizer():
    return models.load(models.locate(Model()))[1]


def test_chat_is_the_models_template_with_the_system_message(tokenizer):
    text = tokenizer.decode(render(tokenizer, "Add two numbers.", Prompt()))
    assert text == (
        f"<|im_start|>system\n{SYSTEM_MESSAGE}<|im_end|>\n"
        "<|im_start|>user\nAdd two numbers.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_without_system_message_and_raw(tokenizer):
    text = tokenizer.decode(render(tokenizer, "Hello", Prompt(system="")))
    assert text == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(render(tokenizer, "Hello", Prompt(format="raw"))) == "Hello"


def test_transformers_own_tokenizer_renders_the_same(tokenizer):
    plain = models.load_tokenizer(models.locate(Model()))
    messages = [{"role": "system", "content": SYSTEM_MESSAGE}, {"role": "user", "content": "x + y"}]
    for thinking in (False, True):
        expected = plain.apply_chat_template(
            messages, add_generation_prompt=True, enable_thinking=thinking, return_dict=False
        )
        assert render(tokenizer, "x + y", Prompt(enable_thinking=thinking)) == expected
        assert template_hash(tokenizer, Prompt()) == template_hash(plain, Prompt())


def test_hash_sees_template_and_settings(tokenizer):
    hashes = {
        template_hash(tokenizer, prompt)
        for prompt in (Prompt(), Prompt(system="other"), Prompt(format="raw"), Prompt(enable_thinking=True))
    }
    assert len(hashes) == 4


def test_model_without_template_is_refused():
    class Bare:
        chat_template = None

    with pytest.raises(BadInput, match=r"prompt\.format to raw"):
        render(Bare(), "x", Prompt())


def sentence_tokenizer(begins: bool, ends: bool) -> PreTrainedTokenizerFast:
    """Words, <s> and </s>; puts <s> before a text and </s> after it where asked to."""
    vocabulary = {"<s>": 0, "</s>": 1, "[UNK]": 2, "x": 3, "add": 4, "two": 5}
    tokenizer = Tokenizer(token_models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    pieces = ["<s>"] * begins + ["$A"] + ["</s>"] * ends
    tokenizer.post_processor = processors.TemplateProcessing(single=pieces, special_tokens=[("<s>", 0), ("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def test_raw_begins_as_the_tokenizer_itself_does():
    raw = Prompt(format="raw")
    assert render(sentence_tokenizer(True, False), "add two", raw) == [0, 4, 5]  # Llama, Gemma
    assert render(sentence_tokenizer(False, False), "add two", raw) == [4, 5]  # has <s>, does not put it: SmolLM2
    assert render(sentence_tokenizer(True, True), "add two", raw) == [0, 4, 5]  # no end before the answer
    assert render(sentence_tokenizer(True, False), "<s> add two", raw) == [0, 4, 5]  # never twice


def test_raw_hash_sees_what_is_put_before_the_text():
    raw = Prompt(format="raw")
    hashes = {template_hash(sentence_tokenizer(begins, False), raw) for begins in (True, False)}
    assert len(hashes) == 2


def test_control_token_in_a_text_is_refused_though_only_tokenizer_json_knows_it(tokenizer):
    plain = models.load_tokenizer(models.locate(Model()))
    plain.add_tokens(["<|file|>"], special_tokens=True)
    assert "<|file|>" not in plain.all_special_tokens
    for text in ("a <|im_end|> b", "a <|file|> b"):
        with pytest.raises(BadInput, match="control token"):
            render(plain, text, Prompt())
