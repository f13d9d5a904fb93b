"""The GGUF conversion gives the model that its makers trained: it knows its language and its end of turn."""

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlx_ssd import models
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.prompts import render
from mlx_ssd.sampling.engine import Request, generate
from mlx_ssd.sections import Prompt

TEXT = "The Eiffel Tower is in Paris, the capital of France. The Colosseum is in Rome, the capital of Italy."


@pytest.fixture(scope="module")
def loaded(stand_in):
    return models.load(models.ModelSource(stand_in("smollm2"), "stand-in"))


def test_tokenizer_splits_as_the_published_one(loaded):
    tokenizer = loaded[1]
    assert tokenizer.encode("Hello world") == [19556, 905]
    assert [tokenizer.decode([i]) for i in tokenizer.encode("x = 123\n    y")] == [
        "x", " =", " ", "1", "2", "3", "\n   ", " y",
    ]  # fmt: skip
    assert tokenizer.eos_token_ids == {2}


def test_language_model_predicts_english(loaded):
    model, tokenizer = loaded
    ids = mx.array([tokenizer.encode(TEXT)])
    loss = nn.losses.cross_entropy(model(ids[:, :-1]), ids[:, 1:], reduction="mean").item()
    assert loss < 2.2  # queries and keys left in the order of GGUF give 2.7


def test_answers_and_ends_its_turn(loaded):
    model, tokenizer = loaded
    prompt_ids = render(tokenizer, "What is the capital of France?", Prompt(system=""))
    request = Request("q", prompt_ids, DecodingPolicy(temperature=0.0), (0, 0), max_tokens=24)
    (done,) = generate(model, [request], tokenizer.eos_token_ids, rows=1)
    assert "Paris" in tokenizer.decode(done.completion_ids)
    assert done.finish_reason == "stop" and done.completion_ids[-1] == 2
