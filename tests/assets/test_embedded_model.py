"""The shipped files of the embedded model: complete, small, alike in MLX, Transformers and pre-training."""

import json
import subprocess
import sys

import pytest

from mlx_ssd.assets import SPLITS, model_path, problems_path
from mlx_ssd.errors import BadInput

SIZE_LIMIT = 8 * 2**20  # bytes, model and problems together


def read_problems(split: str) -> list[dict]:
    return [json.loads(line) for line in problems_path(split).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def mlx_model():
    import mlx_lm

    return mlx_lm.load(str(model_path()))


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    return [problem["prompt"] for problem in read_problems("validation")[:4]]


def chat(prompt: str) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": "Solve this in Python, in one fenced code block."},
        {"role": "user", "content": prompt},
    ]


def test_files_are_small():
    files = [p for p in model_path().parent.rglob("*") if p.is_file() and p.suffix != ".pyc"]
    assert sum(p.stat().st_size for p in files) <= SIZE_LIMIT


def test_paths_import_nothing_heavy():
    code = (
        "import sys, mlx_ssd.assets as a; a.model_path(); a.problems_path('train');"
        "sys.exit(bool({'mlx', 'mlx_lm', 'transformers', 'numpy', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_split_is_bad_input():
    with pytest.raises(BadInput, match="validation"):
        problems_path("valid")


@pytest.mark.parametrize("split, count", [("train", 2000), ("validation", 240), ("test", 600)])
def test_problem_records(split, count):
    problems = read_problems(split)
    assert [p["id"] for p in problems] == [f"{split}-{i:04d}" for i in range(count)]
    for problem in problems:
        assert list(problem) == ["v", "id", "prompt", "entry_point", "tests", "difficulty"]
        assert (problem["v"], problem["entry_point"]) == (1, "solve")
        parameter = problem["prompt"].rpartition("\n\ndef solve(")[2].removesuffix("):")
        assert parameter in {"xs", "n", "s"}
        if split == "train":
            assert problem["tests"] == []
        else:
            assert len(problem["tests"]) in (8, 9)
        for test in problem["tests"]:
            assert len(test["args"]) == 1
            expected = test["expected"]
            assert all(type(v) is int for v in (expected if isinstance(expected, list) else [expected]))
    hard = sum(p["difficulty"] == "hard" for p in problems)
    assert 0.3 < hard / count < 0.5
    assert set(SPLITS) == {"train", "validation", "test"}


def test_no_prompt_is_in_two_splits():
    prompts = [{p["prompt"] for p in read_problems(split)} for split in SPLITS]
    assert not (prompts[0] & prompts[1] or prompts[0] & prompts[2] or prompts[1] & prompts[2])


def test_tokenizer_files(mlx_model):
    _, tokenizer = mlx_model
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
    assert tokenizer.convert_tokens_to_ids(list(names)) == [0, 1, 2, 3, 4]
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == (names[2], names[0], None)
    assert tokenizer.eos_token_ids == {0, 2}
    text = "def solve(xs):\n    return [x * 12 for x in xs]  # é ▁\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_template_renders_chatml_and_ignores_thinking(mlx_model):
    _, tokenizer = mlx_model
    turns = chat("Hello") + [{"role": "assistant", "content": "x"}]
    rendered = tokenizer.apply_chat_template(turns, tokenize=False)
    assert rendered == (
        "<|im_start|>system\nSolve this in Python, in one fenced code block.<|im_end|>\n"
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nx<|im_end|>\n"
    )
    for thinking in (True, False):
        opened = tokenizer.apply_chat_template(
            turns[:2], tokenize=False, add_generation_prompt=True, enable_thinking=thinking
        )
        assert opened == rendered.removesuffix("x<|im_end|>\n")


def test_pretraining_and_autotokenizer_see_the_same_tokens():
    """The tokenizer trained anew, as the builder does it, against the shipped one."""
    pytest.importorskip("torch", reason="the builder imports torch")
    from transformers import AutoTokenizer

    from benchmarks.embedded_model.build import TOKENIZER_EXAMPLES, make_corpus, train_corpus_tokenizer
    from benchmarks.embedded_model.tokenizer import encode

    corpus = make_corpus(TOKENIZER_EXAMPLES, 0)
    trained = train_corpus_tokenizer(corpus)
    shipped = AutoTokenizer.from_pretrained(model_path())
    assert trained.get_vocab() == shipped.get_vocab()
    answer_tokens = 0
    for prompt, code in corpus[:100]:
        head, answer = encode(trained, prompt, code)
        whole = shipped.apply_chat_template(
            chat(prompt) + [{"role": "assistant", "content": f"```python\n{code}\n```"}], return_dict=False
        )
        line_break = shipped.encode("\n")
        assert head + answer + line_break == whole
        assert answer[-1] == shipped.eos_token_id and answer.count(shipped.eos_token_id) == 1
        answer_tokens += len(answer)
    assert answer_tokens / 100 < 55


def test_generates_fenced_code(mlx_model, prompts):
    import mlx_lm

    model, tokenizer = mlx_model
    for prompt in prompts:
        ids = tokenizer.apply_chat_template(chat(prompt), add_generation_prompt=True, return_dict=False)
        text = mlx_lm.generate(model, tokenizer, ids, max_tokens=96)
        assert text.startswith("```python\ndef solve(") and text.endswith("\n```")
        compile(text.removeprefix("```python\n").removesuffix("```"), "answer", "exec")


def test_logits_agree_with_transformers(mlx_model, prompts):
    torch = pytest.importorskip("torch", reason="Transformers' model is in torch")
    import mlx.core as mx
    import numpy as np
    from transformers import AutoModelForCausalLM

    model, tokenizer = mlx_model
    reference = AutoModelForCausalLM.from_pretrained(model_path())
    assert {p.dtype for p in reference.parameters()} == {torch.float32}
    for prompt in prompts:
        ids = tokenizer.apply_chat_template(chat(prompt), add_generation_prompt=True, return_dict=False)
        ours = np.array(model(mx.array([ids])))
        with torch.no_grad():
            theirs = reference(torch.tensor([ids])).logits.numpy()
        assert ours.dtype == np.float32
        assert np.abs(ours - theirs).max() < 1e-4


def test_the_larger_sibling_is_three_to_four_times_as_large():
    pytest.importorskip("torch", reason="the builder imports torch")
    from transformers import AutoTokenizer

    from benchmarks.embedded_model.build import make_model

    tokenizer = AutoTokenizer.from_pretrained(model_path())
    shipped, sibling = (make_model(tokenizer, width).num_parameters() for width in (128, 256))
    assert shipped == 877_952 and 3 < sibling / shipped < 4
