"""One rendering for sampling, training and evaluation; it is the model's own template."""

import pytest

from mlx_ssd import models
from mlx_ssd.errors import BadInput
from mlx_ssd.prompts import render, template_hash
from mlx_ssd.recipe import SYSTEM_MESSAGE, Model, Prompt


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
