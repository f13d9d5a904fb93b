"""How a training step is cut by memory, against arithmetic by hand."""

import pytest

from mlx_ssd import budget
from mlx_ssd.errors import BadInput
from mlx_ssd.model_size import ModelSize
from mlx_ssd.recipe import Training
from mlx_ssd.training_memory import CHUNK_BYTES, LEAST_ROW, MOST_ROW, TrainingMemory

SIZE = ModelSize.of(budget.KNOWN_CONFIGS["mlx-community/Qwen3-4B-Instruct-2507-4bit"])
GB = 1e9


def memory(fused=True, **train):
    return TrainingMemory(SIZE, Training(**train), fused_attention=fused)


def test_by_hand():
    """Qwen3-4B in 4 bits, rank 16 on every linear layer of 36: 33 million parameters, 20 bytes each."""
    a_layer = 32 * 2560 + 13 * 9728 + 11 * 4096 + 18 * 1024
    adapter = 16 * 36 * (2 * (2560 + 4096) + 2 * (2560 + 1024) + 3 * (2560 + 9728))
    assert adapter == 33_030_144  # as mlx-lm counts them
    fixed = SIZE.weight_bytes + 20 * adapter + 2.5 * CHUNK_BYTES
    assert memory().peak(2000, 900, False) == pytest.approx(fixed + 2000 * 36 * a_layer)
    assert memory().peak(2000, 900, True) == pytest.approx(fixed + 2000 * (36 * 2 * 2560 + 1.2 * a_layer))
    assert memory(num_layers=9).peak(2000, 900, False) == pytest.approx(
        SIZE.weight_bytes + 20 * adapter / 4 + 2.5 * CHUNK_BYTES + 2000 * 9 * a_layer
    )
    square = memory(fused=False).peak(2000, 900, False) - memory().peak(2000, 900, False)
    assert square == pytest.approx(12 * 32 * 36 * 900**2)


def test_full_fine_tuning_holds_everything_in_float32():
    full = memory(method="full").peak(1, 1, True)
    assert full == pytest.approx(SIZE.parameters * 20, rel=0.01)
    soft = memory(method="full", targets="distribution").peak(1, 1, True)
    assert soft == pytest.approx(SIZE.parameters * 24, rel=0.01)


def test_much_memory_is_used_before_anything_is_recomputed():
    plan = memory().plan(64 * GB, 3000)
    assert (plan.gradient_checkpointing, plan.row_tokens) == (False, MOST_ROW)
    assert plan.peak_bytes == memory().peak(MOST_ROW, 3000, False)


def test_little_memory_is_made_do_with_by_recomputing():
    plan = memory().plan(8 * GB, 3000)
    assert plan.gradient_checkpointing and plan.row_tokens == MOST_ROW and plan.peak_bytes <= 8 * GB


def test_a_sample_longer_than_a_row_is_a_row_of_its_own():
    plan = memory().plan(64 * GB, 9000)
    assert plan.peak_bytes == memory().peak(9000, 9000, plan.gradient_checkpointing) <= 64 * GB


def test_less_memory_never_takes_more():
    peaks = []
    for gigabytes in (4.5, 5, 6, 8, 12, 16, 24, 48):
        plan = memory().plan(gigabytes * GB, 1500)
        assert plan.peak_bytes <= gigabytes * GB and plan.row_tokens >= 256
        peaks.append(plan.peak_bytes)
    assert len(set(peaks)) > 3


def test_what_the_recipe_says_is_kept():
    plan = memory(row_tokens=700, gradient_checkpointing=True).plan(64 * GB, 600)
    assert (plan.row_tokens, plan.gradient_checkpointing) == (700, True)
    plan = memory(row_tokens=LEAST_ROW, gradient_checkpointing=False).plan(64 * GB, 600)
    assert (plan.row_tokens, plan.gradient_checkpointing) == (LEAST_ROW, False)


def test_what_does_not_fit_is_refused_with_what_would():
    with pytest.raises(BadInput, match=r"sample of 60,000 tokens takes [\d.]+ GB \(computed\), and 5 GB may") as error:
        memory().plan(5 * GB, 60_000)
    fits = memory().longest(5 * GB, True)
    assert f"train.max_length (to {fits:,}, with" in str(error.value) and "train.num_layers" in str(error.value)
    assert memory().plan(5 * GB, fits).peak_bytes <= 5 * GB
    with pytest.raises(BadInput):
        memory().plan(5 * GB, fits + 1)
    with pytest.raises(BadInput, match=r"train\.gradient_checkpointing \(to true or null\)"):
        memory(gradient_checkpointing=False).plan(5 * GB, 3000)
    with pytest.raises(BadInput, match=r"train\.method \(to lora\)"):
        memory(method="full").plan(30 * GB, 100)
    with pytest.raises(BadInput, match="take a smaller model"):
        memory().plan(1 * GB, 100)


def test_experts_wear_adapters_only_when_asked():
    config = budget.KNOWN_CONFIGS["mlx-community/Qwen3-4B-Instruct-2507-4bit"]
    moe = config | {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}
    size = ModelSize.of(moe)
    without, with_experts = (TrainingMemory(size, Training(experts=on)).peak(1, 1, True) for on in (False, True))
    assert with_experts - without == pytest.approx(20 * 16 * 36 * 3 * 128 * (2560 + 768))
