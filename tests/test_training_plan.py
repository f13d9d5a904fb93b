"""The cut of a training step: against by-hand arithmetic, and as a function of the memory."""

import re
from pathlib import Path

import pytest

from mlx_ssd.budget import KNOWN_CONFIGS, ModelSize, training_plan
from mlx_ssd.budget.training import BFLOAT16, resident_bytes, step_bytes, step_parts, trained_parameters
from mlx_ssd.errors import BadInput
from mlx_ssd.sections import Training

CONFIG = KNOWN_CONFIGS["mlx-community/Qwen3-4B-Instruct-2507-4bit"]
QWEN = ModelSize.of(CONFIG)
PLAIN = ModelSize.of({key: value for key, value in CONFIG.items() if key != "quantization"})
MIXTURE = ModelSize.of(CONFIG | {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 1024})
GB = 10**9


def plan(memory_gb, longest=2000, step=32_000, size=QWEN, **settings):
    return training_plan(size, Training(**settings), size.weight_bytes, memory_gb * GB, longest, step)


class TestBytes:
    def test_adapters_on_every_linear_layer_but_those_of_experts(self):
        # Qwen3-4B: queries, keys, values, output, gate, up, down.
        a_layer = 2 * (2560 + 4096) + 2 * (2560 + 1024) + 3 * (2560 + 9728)
        assert trained_parameters(QWEN, Training(rank=16)) == 16 * 36 * a_layer == 33_030_144
        assert trained_parameters(QWEN, Training(rank=16, num_layers=9)) == 16 * 9 * a_layer
        without = 2 * (2560 + 4096) + 2 * (2560 + 1024) + (2560 + 8)  # the router
        assert trained_parameters(MIXTURE, Training(rank=1)) == 36 * without
        assert trained_parameters(MIXTURE, Training(rank=1, experts=True)) == 36 * (without + 8 * 3 * (2560 + 1024))

    def test_full_training_trains_all_or_the_last_layers(self):
        assert trained_parameters(PLAIN, Training(method="full")) == PLAIN.parameters
        layers = PLAIN.parameters - 151_936 * 2560 - 2560  # embedding, last norm
        assert trained_parameters(PLAIN, Training(method="full", num_layers=4)) == layers * 4 / 36

    def test_what_is_there_all_through(self):
        adapter = 4 * 33_030_144
        # The adapter, the gradient of earlier rows, two moments; validation keeps the best.
        assert resident_bytes(QWEN, Training(), 5 * GB) == 5 * GB + 4 * adapter
        assert resident_bytes(QWEN, Training(validation={}), 5 * GB) == 5 * GB + 5 * adapter
        full = {"method": "full"}
        assert resident_bytes(PLAIN, Training(**full), 8 * GB) == 16 * PLAIN.parameters
        soft = Training(**full, targets="distribution", validation={})
        assert resident_bytes(PLAIN, soft, 8 * GB) == 24 * PLAIN.parameters
        last = Training(**full, num_layers=9)
        trained = trained_parameters(PLAIN, last)
        assert resident_bytes(PLAIN, last, PLAIN.weight_bytes) == 2 * (PLAIN.parameters - trained) + 16 * trained

    def test_a_row_by_hand(self):
        """3,000 tokens, the longest sample 1,000, 9 of 36 layers: blocks of 256 queries; the rest may be short."""
        kept, train = BFLOAT16.kept, Training(num_layers=9)
        widths = kept.hidden * 2560 + kept.mlp * 9728 + kept.heads * (4096 + 1024)
        layer = 3000 * widths + kept.scores * 32 * 2000 * 256
        block = BFLOAT16.block * 32 * 256 * 1000
        assert step_bytes(QWEN, train, 3000, 1000, False) == pytest.approx((9 + 1.25) * layer + block)
        layer = 3000 * widths + kept.scores * 32 * 3000 * 200
        assert step_bytes(QWEN, train, 3000, 200, False) == pytest.approx((9 + 1.25) * layer)
        more, fewer = (step_bytes(QWEN, Training(num_layers=n), 3000, 1000, True) for n in (9, 8))
        assert more - fewer == pytest.approx(3000 * 2560 * 2)  # the input of a layer in 16 bits

    def test_a_sample_twice_as_long_takes_twice_as_much(self):
        one, two, four = (step_bytes(QWEN, Training(), n, n, True) for n in (4000, 8000, 16_000))
        assert two == pytest.approx(2 * one) and four == pytest.approx(4 * one)

    def test_only_completion_tokens_have_logits(self):
        few, all_ = (
            step_parts(QWEN, Training(), 64, 64, True, positions=positions)["logits"] for positions in (32, None)
        )
        assert few == BFLOAT16.logits * 32 * 151_936 and all_ == 2 * few

    def test_without_a_plain_head_all_logits_exist(self):
        few, many = (step_bytes(QWEN, Training(), tokens, 1, True, plain_head=False) for tokens in (1000, 2000))
        assert many - few == pytest.approx(1000 * (BFLOAT16.all_logits * 151_936 + 36 * BFLOAT16.input * 2560))


class TestChoice:
    def test_nothing_is_recomputed_where_it_fits(self):
        plans = {memory: plan(memory) for memory in (6, 8, 12, 16, 24, 32, 48, 64, 96)}
        recomputed = [chosen.gradient_checkpointing for chosen in plans.values()]
        assert recomputed == sorted(recomputed, reverse=True) and set(recomputed) == {True, False}
        for memory, chosen in plans.items():
            assert chosen.peak_bytes <= memory * GB
        again = plan(24)
        assert again == plans[24]

    def test_rows_are_as_long_as_the_longest_sample_and_longer_only_within_half_of_the_memory(self):
        for longest in (1500, 3000):
            tight = plan(200, longest)
            while tight.row_tokens > longest:
                assert tight.peak_bytes <= 0.5 * 200 * GB
                tight = plan(tight.peak_bytes / GB, longest)
            assert tight.row_tokens == longest
        assert plan(1000).row_tokens == 8192
        assert plan(1000, step=3000).row_tokens == 2048  # never more than a step holds
        assert plan(1000, longest=100, step=700).row_tokens == 700
        assert plan(1000, longest=20_000).row_tokens == 8192  # the longest is a row of its own

    def test_recomputing_a_row_may_be_as_short_as_the_longest_sample(self):
        least = plan(1000, longest=200, gradient_checkpointing=True, row_tokens=200).peak_bytes
        chosen = plan(least / GB, longest=200)
        assert chosen.gradient_checkpointing and chosen.row_tokens == 200

    def test_what_the_recipe_says_is_kept(self):
        chosen = plan(200, row_tokens=1234, gradient_checkpointing=True)
        assert (chosen.row_tokens, chosen.gradient_checkpointing) == (1234, True)
        assert plan(200, row_tokens=1234, gradient_checkpointing=False).peak_bytes > chosen.peak_bytes
        with pytest.raises(BadInput, match=r"a row of 2,000 tokens .* set train\.gradient_checkpointing to true"):
            plan(10, gradient_checkpointing=False)

    def test_what_does_not_fit_is_refused_with_settings_that_do(self):
        with pytest.raises(BadInput, match=r"30,000 tokens takes [\d.]+ GB \(computed\), and 16 GB may") as error:
            plan(16, longest=30_000)
        for mend in ("train.num_layers", "train.too_long cut or drop", "raise train.memory_gb"):
            assert mend in str(error.value)
        fits = int(re.search(r"train\.max_length \(to (\d+)", str(error.value))[1])
        assert plan(16, longest=fits).gradient_checkpointing
        with pytest.raises(BadInput):
            plan(16, longest=fits + 1)
        with pytest.raises(BadInput, match=r"a row of 50,000 tokens .* lower train\.num_layers or train\.row_tokens"):
            plan(16, row_tokens=50_000)

    def test_full_training_of_four_billion_parameters_is_no_macs(self):
        with pytest.raises(BadInput, match=r"lower train\.num_layers, or .* or take train\.method lora"):
            plan(48, size=PLAIN, method="full")
        assert plan(160, size=PLAIN, method="full").peak_bytes > 80 * GB


def test_the_documented_memory_is_what_is_computed():
    text = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d,]+) \| ([\d.]+) \|$", text, re.M)
    assert len(rows) == 6
    for tokens, gigabytes in rows:
        length, train = int(tokens.replace(",", "")), Training(rank=16)
        peak = resident_bytes(QWEN, train, QWEN.weight_bytes) + step_bytes(QWEN, train, length, length, True)
        assert f"{peak / GB:.1f}" == gigabytes
