"""The sizing formulas, against numbers that somebody else published or computed, and against by-hand arithmetic."""

import re

import pytest

from mlx_ssd import budget, recipe
from mlx_ssd.budget import ModelSize, chip_of, decoding_step_seconds, prompts_for, training_plan
from mlx_ssd.budget.training import resident_bytes, step_bytes
from mlx_ssd.errors import BadInput
from mlx_ssd.recipe import Recipe

QWEN = budget.KNOWN_CONFIGS["mlx-community/Qwen3-4B-Instruct-2507-4bit"]
GIB = 2**30


def mac(chip="Apple M4 Max", cores=16, gigabytes=64):
    return {"chip": chip, "cores": cores, "memory_bytes": gigabytes * GIB}


def a_recipe(**overrides):
    base = {"problems.train": {"source": "rstar_coder"}, "problems.test": {"source": "embedded", "limit": 60}}
    small = {"train.num_layers": 8, "sample.max_tokens": 2048}
    return Recipe.parse("", "r", base | small | {key.replace("__", "."): value for key, value in overrides.items()})


class TestModelSize:
    def test_qwen3_4b(self):
        size = ModelSize.of(QWEN)
        assert size.parameters == 4_022_272_000  # norms aside: the card says 4.0 billion, 3.6 without the embedding
        assert size.weight_bytes == pytest.approx(2_263_022_417, rel=1e-3)  # the published model.safetensors
        assert size.kv_bytes == 36 * 2 * 8 * 128 * 2 == 147_456
        assert size.flops(0) == 2 * size.parameters
        assert size.flops(1000) - size.flops(0) == 4 * 36 * 32 * 128 * 1000

    def test_bits(self):
        plain = {key: value for key, value in QWEN.items() if key != "quantization"}
        parameters = ModelSize.of(QWEN).parameters
        assert ModelSize.of(plain).weight_bytes == 2 * parameters
        assert ModelSize.of(plain | {"torch_dtype": "float32"}).weight_bytes == 4 * parameters
        eight = plain | {"quantization": {"bits": 8, "group_size": 32}}
        assert ModelSize.of(eight).weight_bytes == 9 * parameters / 8

    def test_mixture_of_experts(self):
        """Qwen3-30B-A3B: 30.5 billion parameters, 3.3 of them active, says its card."""
        config = QWEN | {
            "hidden_size": 2048, "num_hidden_layers": 48, "num_key_value_heads": 4, "intermediate_size": 6144,
            "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8, "tie_word_embeddings": False,
        }  # fmt: skip
        size = ModelSize.of(config)
        assert size.parameters == pytest.approx(30.5e9, rel=0.01)
        assert size.active == pytest.approx(3.3e9, rel=0.1)
        one, many = size.read_bytes(1), size.read_bytes(64)
        assert one == pytest.approx(size.weight_bytes - size.expert_bytes * 120 / 128)
        assert one < size.weight_bytes / 5 and size.weight_bytes * 0.98 < many < size.weight_bytes

    def test_dense_reads_everything_each_step(self):
        size = ModelSize.of(QWEN)
        assert size.read_bytes(1) == size.read_bytes(64) == size.weight_bytes

    def test_nested_and_unusual_configs(self):
        assert ModelSize.of({"model_type": "x", "text_config": QWEN}) == ModelSize.of(QWEN)
        with pytest.raises(BadInput, match=r"no 'hidden_size'; give problems\.train\.limit"):
            ModelSize.of({"num_hidden_layers": 2})


class TestDecoding:
    # Published for one row: 135 tokens/s on an M4 Max, 45 on an M3 Pro (128 tokens after a prompt).
    @pytest.mark.parametrize("chip, cores, published", [("Apple M4 Max", 16, 135), ("Apple M3 Pro", 12, 45)])
    def test_one_row_against_published_speed(self, chip, cores, published):
        step = decoding_step_seconds(chip_of(mac(chip, cores)), ModelSize.of(QWEN), 1, 128)
        assert 1 / step == pytest.approx(published, rel=0.1)

    def test_by_hand(self):
        chip, size = chip_of(mac()), ModelSize.of(QWEN)
        read = (size.weight_bytes + 8 * 1050 * 147_456) / (0.7 * 546e9)
        assert decoding_step_seconds(chip, size, 8, 1050) == pytest.approx(read + 0.001)
        arithmetic = 64 * size.flops(1050) / (40 * 0.25e12)
        assert decoding_step_seconds(chip, size, 64, 1050) == pytest.approx(arithmetic + 0.001)

    def test_prefill_against_published_speed(self):
        """mlx-lm's BENCHMARKS.md, 2,048 tokens on an M4 Max: 1,622 a second; the head works on the last one alone."""
        size = ModelSize.of(QWEN)
        body = size.flops(1024) - 2 * size.vocabulary * 2560
        assert chip_of(mac()).prefill_flops / body == pytest.approx(1622, rel=0.25)


class TestChips:
    def test_cpu_cores_tell_variants_apart(self):
        assert chip_of(mac(cores=16)).bytes_per_second == 546e9
        assert chip_of(mac(cores=14)).bytes_per_second == 410e9
        assert chip_of(mac(cores=99)) == chip_of(mac(cores=14))  # unheard of: the slower

    @pytest.mark.parametrize("chip", ["AMD EPYC 7763", "Apple M17 Max", "x86_64"])
    def test_unknown_machine_is_told_what_to_do(self, chip):
        with pytest.raises(BadInput) as error:
            prompts_for(8, a_recipe(), mac(chip), QWEN)
        assert chip in str(error.value) and "--set problems.train.limit=" in str(error.value)

    def test_faster_and_larger_siblings(self):
        for variants in budget.CHIPS.values():
            assert list(variants) == sorted(variants)


class TestSizing:
    def test_fills_the_hours_and_no_more(self):
        sizing = prompts_for(8, a_recipe(), mac(), QWEN)
        spent = sum(sizing.seconds.values())
        one = (sizing.seconds["sample"] + sizing.seconds["train"]) / sizing.problems
        assert spent <= 0.9 * 8 * 3600 < spent + one

    def test_twice_the_time_beside_evaluation_is_twice_the_problems(self):
        four, eight = (prompts_for(hours, a_recipe(), mac(), QWEN) for hours in (4, 8))
        assert four.seconds["evaluate"] == eight.seconds["evaluate"]
        ratio = (0.9 * 8 * 3600 - four.seconds["evaluate"]) / (0.9 * 4 * 3600 - four.seconds["evaluate"])
        assert eight.problems / four.problems == pytest.approx(ratio, rel=0.01)

    def test_training_by_hand(self):
        """500 + 1,500 tokens, 8 of 36 layers."""
        size, rate = ModelSize.of(QWEN), 40 * 0.13e12
        keys = (2000 + 256) / 2  # a block of 256 queries looks at what comes before and at itself
        forward = 2 * size.parameters + 4 * size.attention * keys
        flops = 2000 * (forward + 8 / 36 * (forward + 6 * size.attention * keys))

        def seconds(**overrides):
            sizing = prompts_for(8, a_recipe(**overrides), mac(), QWEN)
            return sizing.problems, sizing.seconds["train"]

        problems, plain = seconds()
        assert plain / problems == pytest.approx(flops / rate)
        problems, soft = seconds(train__targets="distribution")
        assert soft / problems == pytest.approx((flops + 2000 * forward) / rate)
        problems, again = seconds(train__gradient_checkpointing=True)
        assert again / problems == pytest.approx((flops + 8 / 36 * 2000 * forward) / rate)
        _, fixed = seconds(train__steps=100)
        assert fixed == pytest.approx(100 * 16 * flops / rate)
        problems, held_out = seconds(train__validation={"percent": 10, "every_steps": 20})
        times = 1 + 0.9 * problems / 16 / 20
        assert held_out == pytest.approx((0.9 * problems * flops + times * 0.1 * problems * 2000 * forward) / rate)

    def test_training_is_cut_by_the_memory(self):
        """The longest sample: twice the mean prompt, and an answer of max_tokens."""
        size, recipe_ = ModelSize.of(QWEN), a_recipe(train__num_layers=-1)
        peaks = []
        for gigabytes in (16, 64):
            limit = 0.65 * gigabytes * GIB
            plan = training_plan(size, recipe_.train, size.weight_bytes, limit, 1000 + 2048, 16 * 2000)
            sizing = prompts_for(8, recipe_, mac(gigabytes=gigabytes), QWEN)
            assert sizing.peak_bytes["train"] == plan.peak_bytes <= limit
            assert any(f"rows of {plan.row_tokens:,} tokens" in sentence for sentence in sizing.sentences)
            assert any("recomputes" in sentence for sentence in sizing.sentences) == plan.gradient_checkpointing
            peaks.append(plan.peak_bytes)
        given = prompts_for(8, a_recipe(train__num_layers=-1, train__memory_gb=8), mac(), QWEN)
        assert given.peak_bytes["train"] <= 8e9 < peaks[1]

    def test_longest_of_the_arms_counts(self):
        arm = {"name": "long", "set": {"sample.max_tokens": 12_000, "train.max_length": 16_000}}
        alone, both = (prompts_for(8, a_recipe(arms=arms), mac(), QWEN).peak_bytes["train"] for arms in ([], [arm]))
        assert both > alone == prompts_for(8, a_recipe(), mac(), QWEN).peak_bytes["train"]

    def test_more_arms_epochs_and_samples_leave_fewer_problems(self):
        alone = prompts_for(8, a_recipe(), mac(), QWEN)
        arm = prompts_for(8, a_recipe(arms=[{"name": "b", "set": {"train.rank": 8}}]), mac(), QWEN)
        assert arm.seconds["train"] / arm.problems == pytest.approx(2 * alone.seconds["train"] / alone.problems)
        # The arm trains on the same samples; one that samples on its own does not.
        assert arm.seconds["sample"] / arm.problems == pytest.approx(alone.seconds["sample"] / alone.problems)
        own = prompts_for(8, a_recipe(arms=[{"name": "b", "set": {"sample.decoding.temperature": 1}}]), mac(), QWEN)
        assert own.seconds["sample"] / own.problems == pytest.approx(2 * alone.seconds["sample"] / alone.problems)
        for key, value in (("train__epochs", 2), ("sample__samples_per_problem", 2)):
            assert prompts_for(8, a_recipe(**{key: value}), mac(), QWEN).problems < 0.7 * alone.problems

    def test_evaluation_counts_every_decoding(self):
        def seconds(**overrides):
            return prompts_for(8, a_recipe(**overrides), mac(), QWEN).seconds["evaluate"]

        base = seconds()  # base, two-stage, student
        assert seconds(evaluate__two_stage=False) == pytest.approx(base * 2 / 3)
        assert seconds(evaluate__base_best={"temperature": 0.7}) == pytest.approx(base * 4 / 3)
        assert seconds(problems__test={"source": "embedded", "limit": 120}) == pytest.approx(2 * base)

    def test_rows_fit_and_more_would_not_help(self):
        for gigabytes in (16, 24, 64):
            sizing = prompts_for(8, a_recipe(sample__max_tokens=512), mac(gigabytes=gigabytes), QWEN)
            assert sizing.peak_bytes["sample"] <= sizing.peak_bytes["limit"] == 0.65 * gigabytes * GIB
            tokens = 1512 + (sizing.sample_rows - 1) * 1012  # one row is longest, the others are as expected
            by_hand = ModelSize.of(QWEN).weight_bytes + tokens * 147_456 + sizing.sample_rows * 20 * 151_936
            assert sizing.peak_bytes["sample"] == pytest.approx(by_hand)
        assert sizing.sample_rows < 64

    def test_slow_reading_wants_more_rows(self):
        rows = [
            prompts_for(8, a_recipe(), mac(*chip), QWEN).sample_rows
            for chip in (("Apple M3 Pro", 12), ("Apple M1 Max", 10))
        ]
        assert rows[0] > rows[1]  # 150 GB/s for 18 cores, 400 for 24

    def test_what_does_not_fit_is_refused_with_a_setting_that_does(self):
        long = {"sample__max_tokens": 16_384, "train__max_length": 20_000}
        with pytest.raises(BadInput, match=r"a row of 17,384 tokens .* or lower sample\.max_tokens") as error:
            prompts_for(8, a_recipe(**long), mac(gigabytes=16), QWEN)
        fits = int(re.search(r"train\.max_length \(to (\d+),", str(error.value))[1])
        assert prompts_for(8, a_recipe(**long | {"train__max_length": fits}), mac(gigabytes=16), QWEN).problems
        with pytest.raises(BadInput):
            prompts_for(8, a_recipe(**long | {"train__max_length": fits + 1}), mac(gigabytes=16), QWEN)
        with pytest.raises(BadInput, match="the weights .* take a smaller model"):
            prompts_for(8, a_recipe(), mac(gigabytes=2), QWEN)

    def test_too_few_hours(self):
        for hours in (0, -1, float("nan"), float("inf")):
            with pytest.raises(BadInput, match="above 0"):
                prompts_for(hours, a_recipe(), mac(), QWEN)
        with pytest.raises(BadInput, match=r"evaluation alone takes \d\.\d h"):
            prompts_for(0.1, a_recipe(), mac(), QWEN)

    def test_sentences_own_up(self):
        sizing = prompts_for(8, a_recipe(), mac(), QWEN)
        said = " ".join(sizing.sentences)
        assert f"{sizing.problems:,} training problems" in said and f"{sizing.sample_rows} rows" in said
        for assumption in (
            "500 tokens a prompt",
            "1,500 an answer",
            "70% of 546 GB/s",
            "40 GPU cores",
            "not yet measured",
        ):
            assert assumption in said


MAX = ("Apple M4 Max", 16, 64)


@pytest.mark.parametrize(
    "name, machine, problems, peak",
    [
        ("qwen3-4b-instruct", MAX, 2500, 35),
        ("qwen3-4b-instruct", ("Apple M4 Pro", 12, 24), 800, 8),
        ("qwen3-4b-instruct", ("Apple M4", 10, 16), 390, 6),
        ("qwen3-4b-thinking", MAX, 320, 33),
        ("qwen3-4b-thinking", ("Apple M4 Pro", 12, 24), 120, 13),
        ("own-code", MAX, None, 20),
        ("own-code", ("Apple M4", 10, 24), None, 8),
        ("own-code", ("Apple M4", 10, 16), None, 5),
    ],
)
def test_figures_in_the_headers_of_the_recipes(name, machine, problems, peak):
    head = " ".join(recipe.find(name).read_text().partition("\nname:")[0].replace("#", "").split())
    sizing = prompts_for(8, Recipe.load(name), mac(*machine), QWEN)
    assert round(max(sizing.peak_bytes[k] for k in ("sample", "train", "evaluate")) / 1e9) == peak
    assert re.search(rf"Peak GB .*\b{peak}\b", head)
    if problems:
        assert round(sizing.problems, -2 if problems > 999 else -1) == problems
        assert f"{problems:,} on an {machine[0].removeprefix('Apple ')}" in head


@pytest.mark.parametrize("name, problems, hours", [("qwen3-4b-instruct", 1000, 3), ("qwen3-4b-thinking", 200, 5)])
def test_hours_in_the_headers_of_the_recipes(name, problems, hours):
    loaded = Recipe.load(name)
    assert loaded.problems.train.limit == problems
    seconds, many = sized_seconds(loaded, MAX)
    assert round(problems * seconds / 3600 + many) == hours
    assert f"{problems:,} prompts take about {hours} hours" in " ".join(
        recipe.find(name).read_text().replace("#", "").split()
    )


@pytest.mark.parametrize("machine, each, judged", [(MAX, 14, 0.7), (("Apple M4", 10, 24), 92, 3.1)])
def test_seconds_in_the_header_of_own_code(machine, each, judged):
    seconds, hours = sized_seconds(Recipe.load("own-code"), machine)
    assert round(seconds) == each and round(hours, 1) == judged
    head = recipe.find("own-code").read_text()
    assert re.search(rf"\b{each}\b", head) and str(judged) in head


def sized_seconds(loaded, machine):
    """(seconds a problem, hours of evaluation)"""
    sizing = prompts_for(8, loaded, mac(*machine), QWEN)
    one = (sizing.seconds["sample"] + sizing.seconds["train"]) / sizing.problems
    return one, sizing.seconds["evaluate"] / 3600


def test_gigabytes_in_the_header_of_the_papers_recipe():
    loaded, head = Recipe.load("paper-4b-instruct"), recipe.find("paper-4b-instruct").read_text()
    size = ModelSize.of({key: value for key, value in QWEN.items() if key != "quantization"})
    always = resident_bytes(size, loaded.train, size.weight_bytes)
    step = step_bytes(size, loaded.train, 65_536, 65_536, True)
    assert f"Here {always / 1e9:.0f} for weights" in head and f"and {step / 1e9:.0f} more to train" in head
    assert f"in sampling {65_536 * size.kv_bytes / 1e9:.1f} of" in head
