"""The sizing formulas, against numbers that somebody else published or computed, and against by-hand arithmetic."""

import re

import pytest

from mlx_ssd import budget
from mlx_ssd.budget import ChipSpeed, Costs, ModelSize, chip_of, prompts_for, training_plan, usable_bytes
from mlx_ssd.budget.costs import decoding_seconds
from mlx_ssd.budget.decoding import Work, decoding_parts, prefill_bytes, rows_that_fit
from mlx_ssd.errors import BadInput
from mlx_ssd.recipe import Recipe

QWEN = budget.KNOWN_CONFIGS["mlx-community/Qwen3-4B-Instruct-2507-4bit"]
PLAIN = {key: value for key, value in QWEN.items() if key != "quantization"}
VALIDATION = {"percent": 10, "every_steps": 20}
GIB = 2**30


def mac(chip="Apple M4 Max", cores=16, gigabytes=64):
    return {"chip": chip, "cores": cores, "memory_bytes": gigabytes * GIB}


def a_recipe(**overrides):
    base = {"problems.train": {"source": "rstar_coder"}, "problems.test": {"source": "embedded", "limit": 60}}
    small = {"train.num_layers": 8, "sample.max_tokens": 2048}
    return Recipe.parse("", "r", base | small | {key.replace("__", "."): value for key, value in overrides.items()})


class TestDecoding:
    # Published for one row: 135 tokens/s on an M4 Max, 45 on an M3 Pro (128 tokens after a prompt).
    @pytest.mark.parametrize("chip, cores, published", [("Apple M4 Max", 16, 135), ("Apple M3 Pro", 12, 45)])
    def test_one_row_against_published_speed(self, chip, cores, published):
        step = ChipSpeed(chip_of(mac(chip, cores))).decoding_step(ModelSize.of(QWEN), 1, 128)
        assert 1 / step == pytest.approx(published, rel=0.1)

    def test_by_hand(self):
        speed, size = ChipSpeed(chip_of(mac())), ModelSize.of(QWEN)
        read = (size.weight_bytes + 8 * 1050 * 147_456) / (0.7 * 546e9)
        assert speed.decoding_step(size, 8, 1050) == pytest.approx(read + 0.001)
        arithmetic = 64 * size.flops(1050) / (40 * 0.25e12)
        assert speed.decoding_step(size, 64, 1050) == pytest.approx(arithmetic + 0.001)

    def test_prefill_against_published_speed(self):
        """mlx-lm's BENCHMARKS.md, 2,048 tokens on an M4 Max: 1,622 a second; the head works on the last one alone."""
        size = ModelSize.of(QWEN)
        body = size.flops(1024) - 2 * size.vocabulary * 2560
        assert chip_of(mac()).prefill_flops / body == pytest.approx(1622, rel=0.25)


class TestDecodingBytes:
    def test_slots_of_answers_of_one_length_are_those_of_the_longest_in_the_end(self):
        average, highest = Work(prompt=100, answer=300, longest_prompt=100, longest_answer=300).slots()
        # 128 tokens up to a length of 128, then 192, 256, 384, 512
        spent = 128 * 27 + 192 * 64 + 256 * 64 + 384 * 128 + 512 * 17
        assert average == pytest.approx(spent / 300, rel=0.02) and highest == 512

    def test_spread_is_around_the_mean_and_within_the_limit(self):
        work = Work(100, 400, 200, 4096)
        assert work.spread == (0, 800) and work.survival(400) == 0.5 and work.survival(800) == 0
        tight = Work(100, 400, 200, 500)
        assert tight.spread == (300, 500) and tight.survival(299) == 1 and tight.survival(400) == 0.5
        for one in (work, tight):
            assert sum(one.survival(t + 0.5) for t in range(1000)) == pytest.approx(400, rel=0.01)

    def test_pairs_against_samples_of_such_lengths(self):
        work = Work(60, 50, 78, 128)  # samples of 42 to 178 tokens
        lengths = range(42, 179)
        squares = sum(n * n for n in lengths)
        assert work.pairs(256) == pytest.approx(squares / sum(lengths), rel=0.01)
        assert work.pairs(100) == pytest.approx(sum(n * n for n in lengths if n <= 100) / sum(lengths), rel=0.03)
        assert work.pairs(40) == 0 and Work(60, 50, 60, 50).pairs(256) == 110

    def test_rows_that_are_left_once_none_waits(self):
        """Answers of 0 to 200 tokens: of rows met at any time, the rest is longer than t with (1 - t / 200) squared."""
        work = Work(100, 100, 100, 1000)
        together, width = work.left(started_together=True)
        assert width * sum(together) == pytest.approx(100) and together[8] == pytest.approx(1 - (8.5 * width) / 200)
        met, width = work.left(started_together=False)
        assert met[4] == pytest.approx((1 - 4.5 * width / 200) ** 2, rel=0.02)
        assert width * sum(met) == pytest.approx(200 / 3, rel=0.02)

    def test_parts_by_hand(self):
        """Alike answers of 150 tokens to prompts of 100: all end in slots of 256."""
        size, work = ModelSize.of(QWEN), Work(100, 150, 100, 150)
        parts = decoding_parts(size, 8, work, 64e9, fused=True)
        assert parts["weights"] == size.weight_bytes and parts["logits"] == 8 * 151_936 * 6
        assert parts["kv"] == pytest.approx(256 * 147_456 * (1 + 7 * 1.1))
        assert parts["activations"] == 400 * (6 * 2560 + 3 * 9728) * 2  # of four prompts
        # Short answers to many long prompts: it is the prompts that take most, all ten of them at once.
        first = decoding_parts(size, 8, Work(200, 2, 200, 2), 64e9, fused=True)
        assert first["kv"] == 10 * 200 * 147_456 and first["activations"] == 2000 * (6 * 2560 + 3 * 9728) * 2
        on_a_cpu = decoding_parts(size, 8, work, 64e9, fused=False)["activations"] - parts["activations"]
        assert on_a_cpu == 400 * 2 * 32 * 100 * 2

    def test_prompts_of_like_length_are_run_together(self):
        assert Work(100, 10, 100, 10).together(7) == 700
        assert Work(100, 10, 200, 10).together(10) == pytest.approx(10 * 0.2 * 200)  # 160 to 200 tokens, of 0 to 200
        assert Work(100, 10, 110, 10).together(10) == 1100

    def test_loading_counts_where_numbers_are_made_wider(self):
        plain = {key: value for key, value in QWEN.items() if key != "quantization"}
        size = ModelSize.of(plain, "float32")
        assert size.weight_bytes == 4 * size.parameters and size.cast_bytes == 2 * 2 * 151_936 * 2560
        assert "loading" in decoding_parts(size, 1, Work(100, 24, 100, 24), 64e9, fused=False)
        for config, dtype in ((plain, "auto"), (QWEN, "float32")):
            assert ModelSize.of(config, dtype).cast_bytes == 0

    def test_engine_and_plan_reckon_alike(self):
        """What admission expects of answers of one length is the plan's, but for slots that growing leaves empty."""
        from mlx_ssd import assets, models
        from mlx_ssd.sampling.memory import Room, token_bytes
        from mlx_ssd.sections import Model
        from mlx_ssd.storage import read_json

        model, _ = models.load(models.locate(Model()), "float32")
        size = ModelSize.of(read_json(assets.model_path() / "config.json"), "float32")
        assert token_bytes(model, grouped=True) == size.kv_bytes
        room, work = Room(model, [(60, 0, 440)] * 16, None, grouped=True), Work(60, 440, 60, 440)
        parts = decoding_parts(size, 16, work, float("inf"), fused=False)
        rows = parts["kv"] * 16 / (1 + 15 * 1.1) + parts["logits"]
        assert rows == pytest.approx(16 * room.row_bytes(500))
        prefill = prefill_bytes(size.hidden, size.mlp, size.heads, 4, 60, fused=False)
        assert room.expect([(60, 0, 440)] * 16) == pytest.approx(size.weight_bytes + rows + 2048 * prefill, rel=0.01)

    def test_most_rows_fit_and_one_more_does_not(self):
        size, work = ModelSize.of(QWEN), Work(500, 1500, 1000, 4096)
        rows = rows_that_fit(size, work, 12e9, True)
        at, above = (sum(decoding_parts(size, n, work, 12e9, True).values()) for n in (rows, rows + 1))
        assert at <= 12e9 < above
        assert rows_that_fit(size, work, 2e9, True) == 0


class TestLimits:
    def test_macs(self):
        """Nine tenths of what llama.cpp prints as recommendedMaxWorkingSetSize, in MiB."""
        for gigabytes, mebibytes in ((8, 5461), (16, 10_923), (32, 21_845), (36, 27_648), (64, 49_152)):
            assert usable_bytes(mac(gigabytes=gigabytes)) == pytest.approx(0.9 * mebibytes * 2**20, rel=1e-3)

    def test_what_metal_says_itself_goes_before(self):
        assert usable_bytes(mac(), recommended=10 * GIB) == 9 * GIB
        assert usable_bytes(mac("AMD EPYC", gigabytes=100)) == pytest.approx(0.9 * 0.65 * 100 * GIB)

    def test_a_small_limit_leaves_room_for_the_process_itself(self):
        """Python and its libraries count too; of a large memory the share leaves them more than enough."""
        described = {"chip": "AMD EPYC", "memory_bytes": 600 * 10**6}
        assert usable_bytes(described) == pytest.approx(0.9 * 250e6, abs=1)
        assert usable_bytes(described | {"memory_bytes": 10**9}) == pytest.approx(0.9 * 650e6, abs=1)
        assert usable_bytes(described | {"memory_bytes": 10**8}) == 0


class TestDecodingSeconds:
    class OneSecondAStep:
        """Whatever is decoded."""

        def decoding_step(self, size, rows, context):
            return 1.0

        def prefill(self, size, tokens):
            return 0.5

        def joining(self, size):
            return 0.25

    @pytest.mark.parametrize("answers, steps", [(8, 200), (4, 200), (80, 10 * 100 - 200 / 3 + 200)])
    def test_rows_run_out_at_the_end(self, answers, steps):
        """8 rows of answers of up to 200 tokens, 100 on average: the last of them alone takes 200 steps."""
        work = Work(100, 100, 100, 1000)
        found = decoding_seconds(self.OneSecondAStep(), ModelSize.of(QWEN), work, 8, answers, 2)
        assert found == pytest.approx(steps + 2 * 0.5 + answers * 0.25, rel=0.01)


class TestCalibratedSpeed:
    TRAINED = {"forward": {"fixed": 1e-5, "layer": 1e-6}, "step": {"fixed": 3e-5, "layer": 4e-6}}
    MEASURED = {
        "start_seconds": 3.0,
        "decoding": [
            {"rows": 4, "context": 100, "fixed": 0.002, "layer": 0.001},
            {"rows": 16, "context": 100, "fixed": 0.004, "layer": 0.002},
        ],
        "attention_seconds": 1e-7,
        "joining": {"fixed": 1e-4, "layer": 1e-5},
        "prefill": {"fixed": 1e-6, "layer": 1e-5},
        "length": 200,
        "recompute": True,
        "training": {"tokens": TRAINED},
    }
    SPEED, SIZE = budget.CalibratedSpeed(MEASURED, 0.1), ModelSize.of(QWEN)

    def test_decoding(self):
        four, sixteen = 0.002 + 36 * 0.001, 0.004 + 36 * 0.002
        assert self.SPEED.decoding_step(self.SIZE, 4, 100) == pytest.approx(four)
        assert self.SPEED.decoding_step(self.SIZE, 8, 100) == pytest.approx((four * sixteen) ** 0.5)
        assert self.SPEED.decoding_step(self.SIZE, 32, 100) == pytest.approx(2 * sixteen)
        assert self.SPEED.decoding_step(self.SIZE, 1, 100) == pytest.approx(four)
        longer = self.SPEED.decoding_step(self.SIZE, 16, 1100)
        assert longer == pytest.approx(sixteen + 36 * 16 * 1000 * 1e-7)

    def test_training_of_all_and_of_the_last_layers(self):
        for layers, seconds in ((-1, 3e-5 + 36 * 4e-6), (9, 3e-5 + 9 * 4e-6 + 27 * 1e-6)):
            train = a_recipe(train__num_layers=layers).train
            assert self.SPEED.training(self.SIZE, train, 200, True) == pytest.approx(200 * seconds)
        assert self.SPEED.forward(self.SIZE, train, 200) == pytest.approx(200 * (1e-5 + 36e-6))
        plain = self.SPEED.training(self.SIZE, a_recipe(train__num_layers=-1).train, 200, False)
        assert plain == pytest.approx(200 * (3e-5 + 36 * 3e-6))
        longer = self.SIZE.flops(400 / 2 + 128) / self.SIZE.flops(200)
        assert self.SPEED.forward(self.SIZE, train, 400) == pytest.approx(400 * longer * (1e-5 + 36e-6))

    def test_sizes_a_run_on_a_machine_that_is_not_in_the_table(self):
        sizing = prompts_for(8, a_recipe(), mac("AMD EPYC"), QWEN, self.SPEED)
        assert sizing.problems > 0 and sum(sizing.seconds.values()) <= 0.9 * 8 * 3600
        assert any("measured here" in sentence for sentence in sizing.sentences)


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
        forward = 2 * size.active + 4 * size.attention * keys
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

    @pytest.mark.parametrize(
        "train, passes",
        [
            # A LoRA on tokens measures its loss, and the terms of the soft one: base and student.
            ({}, 3),
            ({"targets": "distribution"}, 2),
            ({"method": "full"}, 1),
            ({"method": "full", "targets": "distribution"}, 2),
        ],
    )
    def test_validation_by_hand(self, train, passes):
        """As training/validation.py has it: before the first step, every 20 steps and after the last one."""
        size = ModelSize.of(PLAIN)
        recipe, machine = a_recipe(**{f"train__{key}": value for key, value in train.items()}), mac(gigabytes=512)
        held_out = a_recipe(**{f"train__{k}": v for k, v in train.items()}, train__validation=VALIDATION)
        without, costs = (Costs.of(r, PLAIN, machine, ChipSpeed(chip_of(machine))) for r in (recipe, held_out))
        for problems, times in ((100, 2), (1000, 1 + 3)):  # 90 and 900 samples: 6 and 57 steps
            alone = without.seconds(problems)["train"] * 0.9
            validating = costs.seconds(problems)["train"] - alone
            forward = 2000 * size.flops((2000 + 256) / 2) / (40 * 0.13e12)
            assert validating == pytest.approx(times * 0.1 * problems * passes * forward, rel=1e-6)

    def test_training_is_cut_by_the_memory(self):
        """The longest sample: twice the mean prompt, and an answer of max_tokens."""
        size, recipe_ = ModelSize.of(QWEN), a_recipe(train__num_layers=-1)
        peaks = []
        for gigabytes in (16, 64):
            limit = usable_bytes(mac(gigabytes=gigabytes))
            plan = training_plan(size, recipe_.train, size.weight_bytes, limit, 1000 + 2048, 16 * 2000)
            sizing = prompts_for(8, recipe_, mac(gigabytes=gigabytes), QWEN)
            # The cut is for the worst of rows, what is predicted for those that are expected.
            assert 0.9 * plan.peak_bytes < sizing.peak_bytes["train"] <= plan.peak_bytes <= limit
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
        assert arm.seconds["sample"] / arm.problems == pytest.approx(alone.seconds["sample"] / alone.problems, rel=0.02)
        own = prompts_for(8, a_recipe(arms=[{"name": "b", "set": {"sample.decoding.temperature": 1}}]), mac(), QWEN)
        sampled = own.seconds["sample"] / own.problems
        assert sampled == pytest.approx(2 * alone.seconds["sample"] / alone.problems, rel=0.02)
        for key, value in (("train__epochs", 2), ("sample__samples_per_problem", 2)):
            assert prompts_for(8, a_recipe(**{key: value}), mac(), QWEN).problems < 0.7 * alone.problems

    def test_evaluation_counts_every_decoding(self):
        def seconds(**overrides):
            return prompts_for(8, a_recipe(**overrides), mac(), QWEN).seconds["evaluate"]

        base = seconds()  # base, two-stage, student; the prompts are run once for the first two
        assert seconds(evaluate__two_stage=False) == pytest.approx(base * 2 / 3, rel=0.03)
        assert seconds(evaluate__base_best={"temperature": 0.7}) == pytest.approx(base * 4 / 3, rel=0.03)
        assert seconds(problems__test={"source": "embedded", "limit": 120}) == pytest.approx(2 * base, rel=0.02)
        # A further arm is one student more, for base and two-stage are decoded as before.
        arm = {"name": "b", "set": {"train.rank": 8}}
        assert seconds(arms=[arm]) == pytest.approx(base * 4 / 3, rel=0.03)
        other = {"name": "b", "set": {"evaluate.decoding.temperature": 0.5}}
        assert seconds(arms=[other]) == pytest.approx(base * 6 / 3, rel=0.03)

    def test_rows_fit_and_more_would_not_help(self):
        for gigabytes in (16, 24, 64):
            machine = mac(gigabytes=gigabytes)
            sizing = prompts_for(8, a_recipe(sample__max_tokens=512), machine, QWEN)
            assert sizing.peak_bytes["sample"] <= sizing.peak_bytes["limit"] == usable_bytes(machine)
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
            prompts_for(0.05, a_recipe(), mac(), QWEN)

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
