"""What reaches Qwen3: its prompt token for token, its stop tokens, its end of turn, its thinking blocks.

The tokenizer and the template are the real ones; the expected text is written out here by hand.
"""

import json

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from benchmarks.stand_ins import qwen3
from benchmarks.stand_ins.fetch import fetch
from mlx_ssd import models
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.errors import BadInput
from mlx_ssd.filters import curate
from mlx_ssd.grading.extract import extract_code
from mlx_ssd.prompts import render
from mlx_ssd.records import Sample, TrainingRow
from mlx_ssd.sampling.engine import Request, generate
from mlx_ssd.sections import SYSTEM_MESSAGE, Curation, Prompt
from mlx_ssd.storage import hash_bytes, hash_path
from mlx_ssd.training.batches import pad_rows

IM_START, IM_END, END_OF_TEXT = 151644, 151645, 151643
TEXTS = (
    "Add two numbers.",
    "Given xs = [1, 22, 333],\r\n\treturn the sum.\n\n    def solve(xs):\n        ...\n",
    "  Größe, 数字, 🙂: zähle sie \u2028 auf.  ",
    "\n\nWhat does `if n == 0:` do?\n\n",
)


@pytest.fixture(scope="module")
def loaded(stand_in):
    """(model, tokenizer) as every stage gets them."""
    return models.load(models.ModelSource(stand_in("qwen3"), "stand-in"))


@pytest.fixture(scope="module")
def published(loaded):
    """The published files alone, as Transformers and as tokenizers reads them, not as the stand-in lays them out."""
    path = fetch(qwen3.TOKENIZER)["tokenizer.json"]
    return AutoTokenizer.from_pretrained(path.parent), Tokenizer.from_file(str(path))


def expected_text(text: str, system: str, thinking: bool) -> str:
    before = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    opened = "" if thinking else "<think>\n\n</think>\n\n"
    return f"{before}<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n{opened}"


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("system", [SYSTEM_MESSAGE, ""])
@pytest.mark.parametrize("text", TEXTS)
def test_prompt_is_the_expected_text_and_token_equal_to_transformers(loaded, published, text, system, thinking):
    real, plain = published
    ids = render(loaded[1], text, Prompt(system=system, enable_thinking=thinking))
    messages = [{"role": "system", "content": system}] * bool(system) + [{"role": "user", "content": text}]
    theirs = real.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=thinking, return_dict=False)
    assert ids == theirs
    # Neither the template nor Transformers has a part in what follows.
    wanted = expected_text(text, system, thinking)
    assert ids == plain.encode(wanted, add_special_tokens=False).ids
    assert plain.decode(ids, skip_special_tokens=False) == wanted


def test_ids_of_a_short_prompt(loaded):
    user, assistant, line, hi = 872, 77091, 198, 13048
    ids = render(loaded[1], "Hi", Prompt(system="", enable_thinking=True))
    assert ids == [IM_START, user, line, hi, IM_END, line, IM_START, assistant, line]


def test_folder_is_laid_out_as_the_published_one(stand_in):
    """Hashes of mlx-community/Qwen3-4B-Instruct-2507-4bit at 50d427756c6b1b2fe0c0a10f67fbda1fc8e82c1b."""
    config = json.dumps(qwen3.REAL_CONFIG, indent=4).encode()
    assert hash_bytes(config) == "574349e5a343236546fda55e4744a76e181f534182d7dc60ff1bad7e7a502849"
    folder = stand_in("qwen3")
    published = {
        "generation_config.json": "835fffe355c9438e7a25be099b3fccaa98350b83451f9fd2d99512e74f1ade48",
        "tokenizer.json": "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4",
    }
    assert {name: hash_path(folder / name) for name in published} == published
    small = json.loads((folder / "config.json").read_text())
    differing = {key for key, value in small.items() if value != qwen3.REAL_CONFIG[key]}
    assert differing == {*qwen3.SMALL, "quantization", "quantization_config"}
    assert small["quantization"] == {**qwen3.QUANTIZATION, "mode": "affine"}  # newer mlx-lm writes the mode
    assert small["vocab_size"] == 151936 and small["tie_word_embeddings"]


def test_same_seed_same_weights(stand_in, tmp_path):
    first = stand_in("qwen3")
    qwen3.build_dense(tmp_path / "again")
    qwen3.build_dense(tmp_path / "other", seed=1)
    weights = [hash_path(f / "model.safetensors") for f in (first, tmp_path / "again", tmp_path / "other")]
    assert weights[0] == weights[1] != weights[2]


def test_stop_tokens(loaded):
    tokenizer = loaded[1]
    assert tokenizer.eos_token_ids == {IM_END, END_OF_TEXT}  # mlx-lm takes both from generation_config.json
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", IM_END)
    assert tokenizer.convert_ids_to_tokens([IM_START, IM_END, END_OF_TEXT]) == [
        "<|im_start|>", "<|im_end|>", "<|endoftext|>",
    ]  # fmt: skip
    assert render(tokenizer, "Hi", Prompt(format="raw")) == [13048]  # Qwen3 begins with no token of its own


class Says(nn.Module):
    """The stand-in, made to draw `token` `after` so many tokens of its own."""

    def __init__(self, model: nn.Module, prompt: int, after: int, token: int):
        super().__init__()
        self.inner, self.at, self.token = model, prompt + after, token

    @property
    def layers(self):
        return self.inner.layers

    def __call__(self, inputs, cache=None):
        logits = self.inner(inputs, cache=cache)
        length = logits.shape[1]
        first = mx.array(cache[0].offset).reshape(-1, 1, 1) - length  # a number, or one a row
        due = first + mx.arange(length)[None, :, None] >= self.at - 1
        return mx.where(due & (mx.arange(logits.shape[-1]) == self.token), 1e4, logits)


@pytest.mark.parametrize("token", [IM_END, END_OF_TEXT])
def test_a_drawn_end_of_turn_is_trained_and_a_cut_answer_has_none(loaded, token):
    model, tokenizer = loaded
    prompt_ids = render(tokenizer, "Add two numbers.", Prompt())
    policy = DecodingPolicy(temperature=1.6, top_k=20, top_p=0.8)
    talks = Says(model, len(prompt_ids), 5, token)
    requests = [Request(("p", i), prompt_ids, policy, (i, 0), max_tokens) for i, max_tokens in enumerate((16, 4))]
    done = {c.key: c for c in generate(talks, requests, tokenizer.eos_token_ids, rows=2)}
    ended, cut = done["p", 0], done["p", 1]
    assert (ended.finish_reason, len(ended.completion_ids)) == ("stop", 6)
    assert ended.completion_ids[-1] == token and token not in ended.completion_ids[:-1]
    assert (cut.finish_reason, len(cut.completion_ids)) == ("length", 4)
    assert not set(cut.completion_ids) & tokenizer.eos_token_ids

    drawn = {
        "policy": policy.name(),
        "seed": 0,
        "stream": "train",
        "model": "",
        "template": "",
        "prompt_ids": prompt_ids,
    }
    samples = [
        Sample(problem_id="p", sample_index=i, completion_ids=c.completion_ids, finish_reason=c.finish_reason, **drawn)
        for i, c in enumerate((ended, cut))
    ]
    texts = tokenizer.batch_decode([s.completion_ids for s in samples], skip_special_tokens=True)
    assert not any("<|" in text for text in texts)
    kept, _ = curate(samples, texts, Curation(drop_stubs=False))
    assert kept == samples  # cut or not, the paper trains on both
    rows = [
        TrainingRow(**s.model_dump(include={"problem_id", "sample_index", "prompt_ids", "completion_ids"}))
        for s in kept
    ]
    batch = pad_rows(rows)
    targets = batch.targets.tolist()
    assert targets == [*ended.completion_ids, *cut.completion_ids]
    assert targets.count(token) == 1
    # The end of turn is asked for where the token before it was the input; the cut row never sees one.
    assert batch.tokens.reshape(-1)[batch.positions[5]] == ended.completion_ids[4]
    assert not np.isin(batch.tokens[1, len(prompt_ids) :], [IM_END, END_OF_TEXT]).any()
    kept, dropped = curate(samples, texts, Curation(drop_stubs=False, unfinished="drop"))
    assert kept == samples[:1] and dropped == {"unfinished": 1}


def test_control_tokens_in_a_text_are_refused(loaded):
    for token in ("<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|vision_pad|>"):
        with pytest.raises(BadInput, match="control token"):
            render(loaded[1], f"Print {token} twice.", Prompt())


PROGRAM = "def solve(n):\n    return n"
ANSWER = f"```python\n{PROGRAM}\n```"


def test_thinking_blocks(loaded):
    """Qwen3 of April 2025 opens its block itself when it may think; else the prompt holds an empty one."""
    tokenizer = loaded[1]
    think, close = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    may, must_not = (render(tokenizer, "Hi", Prompt(enable_thinking=on)) for on in (True, False))
    assert think not in may and close not in may
    assert must_not[: len(may)] == may
    assert must_not[len(may) :] == [think, 271, close, 271]  # 271: an empty line
    # Both are text to the tokenizer: they survive decoding, and the grader cuts the thinking off.
    said = tokenizer.decode(
        [think, *tokenizer.encode(f"```python\nno\n```\n</think>\n\n{ANSWER}"), IM_END], skip_special_tokens=True
    )
    assert said.startswith("<think>") and extract_code(said) == PROGRAM


def test_prompt_that_opens_the_thinking_block(loaded, stand_in):
    """Thinking-2507 puts `<think>` into the prompt whatever enable_thinking says: the answer only closes it."""
    head, asks, _ = (stand_in("qwen3") / "chat_template.jinja").read_text().partition("{%- if add_generation_prompt %}")
    thinking = TokenizerWrapper(models.load_tokenizer(models.ModelSource(stand_in("qwen3"), "")))
    thinking.chat_template = f"{head}{asks}{{{{- '<|im_start|>assistant\\n<think>\\n' }}}}{{%- endif %}}"
    for on in (True, False):
        ids = render(thinking, "Hi", Prompt(system="", enable_thinking=on))
        assert thinking.decode(ids) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert extract_code(f"First ```python\nno\n``` then\n</think>\n\n{ANSWER}") == PROGRAM
