"""A repetition: as many tokens as asked for, each timed, and the context's bytes counted."""

import gc

import mlx.core as mx
import pytest

from mlx_ssd.bench.configurations import Load, subjects_of
from mlx_ssd.bench.generating import filled_bytes, generate, prompts_of
from mlx_ssd.bench.subject import load
from mlx_ssd.errors import WorkFailed

TOKEN_BYTES = 4 * 2 * 2 * 32 * 4  # layers, keys and values, heads, head size, float32


@pytest.fixture(scope="module")
def embedded():
    return load(subjects_of("embedded")[0])


@pytest.mark.parametrize("rows", [1, 3])
def test_every_token_is_timed_and_none_ends_early(embedded, rows):
    model, tokenizer = embedded
    tokenizer.eos_token_ids = []
    prompts = prompts_of(Load(20, 12, rows), 704)
    gc.collect()
    before = mx.get_active_memory()  # the weights, and what other tests in this process hold
    found = generate(model, tokenizer, prompts, 12)
    assert len(found.steps) == 11 and found.ttft > 0 and min(found.steps) > 0
    # mlx-lm computes up to one token ahead.
    assert found.kv_bytes in [rows * TOKEN_BYTES * tokens for tokens in (31, 32)]
    assert before >= 4 * 877_952
    assert before + found.kv_bytes <= found.steady_bytes < before + 20 * found.kv_bytes


@pytest.mark.parametrize("rows", [1, 2])
def test_an_answer_that_ends_early_is_no_measurement(embedded, rows):
    model, tokenizer = embedded
    tokenizer.eos_token_ids = range(704)
    with pytest.raises(WorkFailed, match="this is a defect"):
        generate(model, tokenizer, prompts_of(Load(20, 12, rows), 704), 12)


def test_prompts_are_the_same_every_time():
    first, again = (prompts_of(Load(8, 2, 2), 704) for _ in range(2))
    assert first == again and first[0] != first[1]


def test_an_empty_part_of_a_buffer_is_not_counted(embedded):
    from mlx_lm.models.cache import RotatingKVCache, make_prompt_cache

    model, _ = embedded
    cache = make_prompt_cache(model)
    mx.eval(model(mx.array([[1, 2, 3]]), cache=cache))
    assert filled_bytes(cache) == 3 * TOKEN_BYTES < sum(layer.nbytes for layer in cache)
    window = RotatingKVCache(max_size=4)
    keys = mx.zeros((1, 2, 1, 32))
    for _ in range(9):
        window.update_and_fetch(keys, keys)
    assert filled_bytes([window]) == window.nbytes  # it is full, and no more is read
