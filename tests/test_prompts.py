"""One rendering for sampling, training and evaluation; it is the model's own template."""

import pytest

from mlx_ssd import models
from mlx_ssd.errors import BadInput
from mlx_ssd.prompts import render, template_hash
from mlx_ssd.recipe import SYSTEM_MESSAGE, Model, Prompt


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer(models.locate(Model()))


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


def test_both_tokenizer_classes_render_the_same(tokenizer):
    _, wrapped = models.load(models.locate(Model()))
    for prompt in (Prompt(), Prompt(enable_thinking=True), Prompt(format="raw")):
        assert render(wrapped, "x + y", prompt) == render(tokenizer, "x + y", prompt)
        assert template_hash(wrapped, prompt) == template_hash(tokenizer, prompt)


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
