"""How many problems fit into a night: bytes and seconds of a run from the model's config.json, the recipe and the chip.

All of it is computed before anything is loaded, and none of it has been measured on a Mac yet. With P the
parameters, A = layers x heads x head size, c a token's context, B the rows decoded side by side:

    weights W        = P x bits / 8; affine groups add a 16-bit scale and bias to each
    KV bytes a token = 2 x layers x key-value heads x head size x 2 (bfloat16)
    F(c)             = 2 P + 4 A c FLOPs of a token; of a mixture only the active experts count
    decoding         = max((W + B c KV) / (70 % of the bandwidth), B F(c) / prefill rate) + 1 ms a step of B tokens
    training         = (F(c) + S (F(c) + 4 A c)) / training rate a token, with S the share of the layers that wear
                       an adapter: the base is frozen, and no gradient goes below the lowest adapter;
                       soft targets add a forward pass, F(c),
                       and so does gradient checkpointing, of the layers that are trained
    training bytes   : training_memory.py

For one row the decoding formula gives 145 tokens/s on an M4 Max and 44 on an M3 Pro for Qwen3-4B in 4 bits;
published are 135 (mlx-lm's BENCHMARKS.md) and 45 (mlx-lm issue 1569). For many rows nothing is published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_ssd.errors import BadInput
from mlx_ssd.model_size import ModelSize
from mlx_ssd.recipe import Recipe
from mlx_ssd.training_memory import TrainingMemory, TrainingPlan

BANDWIDTH_SHARE = 0.7  # of what Apple publishes
STEP_SECONDS = 0.001  # launching kernels and drawing tokens, a decoding step
MEMORY_SHARE = 0.65  # of the machine's; macOS lets the GPU have 67 to 75 %
# Of bfloat16 matrix work. Prefill of 4-bit Qwen3-4B is published at 1,622 tokens/s on an M4 Max (BENCHMARKS.md), which
# is 0.29, and at 615 on an M3 Pro (issue 1569): 0.25 to 0.32. An M5 should do better: its neural accelerators are not
# counted.
PREFILL_FLOPS_PER_GPU_CORE = 0.25e12
# mlx-lm's LORA.md: 250 tokens/s, 4 of 32 layers of Mistral-7B, M1 Max.
TRAINING_FLOPS_PER_GPU_CORE = 0.13e12
# Of a row in decoding, for each entry of the vocabulary: its logits, and what draws from them.
LOGIT_BYTES = 20

# Mean tokens of a prompt, of an answer, and of an answer with its thinking: guesses. The longest prompt is taken as
# twice the mean one, and no answer is longer than max_tokens.
LENGTHS = {"embedded": (100, 400, 3000), "jsonl": (300, 1000, 8000), "rstar_coder": (500, 1500, 12000)}
GRADE_SECONDS = 0.1  # a program
UNKNOWN_PROBLEMS = 100  # of a test set whose size the recipe does not say
RESERVE = 0.1  # of the hours: loading, checkpoints, heat
ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
WORTHWHILE = 1.05  # more rows must gain so much; they cost memory, and beyond some the arithmetic is the limit

# Cores of the CPU, GB/s, cores of the GPU: Apple's technical specifications. Where CPU cores do not tell
# two GPUs apart the smaller is taken.
CHIPS: dict[str, tuple[tuple[int, float, int], ...]] = {
    "Apple M1": ((8, 68.25, 7),),
    "Apple M1 Pro": ((8, 200, 14), (10, 200, 14)),
    "Apple M1 Max": ((10, 400, 24),),
    "Apple M1 Ultra": ((20, 800, 48),),
    "Apple M2": ((8, 100, 8),),
    "Apple M2 Pro": ((10, 200, 16), (12, 200, 19)),
    "Apple M2 Max": ((12, 400, 30),),
    "Apple M2 Ultra": ((24, 800, 60),),
    "Apple M3": ((8, 100, 8),),
    "Apple M3 Pro": ((11, 150, 14), (12, 150, 18)),
    "Apple M3 Max": ((14, 300, 30), (16, 400, 40)),
    "Apple M3 Ultra": ((28, 819, 60), (32, 819, 80)),
    "Apple M4": ((8, 120, 8), (10, 120, 8)),
    "Apple M4 Pro": ((12, 273, 16), (14, 273, 20)),
    "Apple M4 Max": ((14, 410, 32), (16, 546, 40)),
    "Apple M5": ((10, 153, 8),),
    "Apple M5 Pro": ((15, 307, 16), (18, 307, 20)),
    "Apple M5 Max": ((18, 460, 32),),
}

_QWEN3_4B = {
    "head_dim": 128,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "quantization": {"group_size": 64, "bits": 4},
    "tie_word_embeddings": True,
    "vocab_size": 151936,
}
# The part of config.json that is read here, of models that need not be downloaded to plan with them.
KNOWN_CONFIGS: dict[str, dict[str, Any]] = {
    "mlx-community/Qwen3-4B-Instruct-2507-4bit": _QWEN3_4B,
    "mlx-community/Qwen3-4B-Thinking-2507-4bit": _QWEN3_4B,
}


@dataclass(frozen=True)
class Chip:
    bytes_per_second: float
    gpu_cores: int

    @property
    def prefill_flops(self) -> float:
        return self.gpu_cores * PREFILL_FLOPS_PER_GPU_CORE

    @property
    def training_flops(self) -> float:
        return self.gpu_cores * TRAINING_FLOPS_PER_GPU_CORE


@dataclass(frozen=True)
class Sizing:
    """What `prompts_for` chose, and why. All figures are computed."""

    problems: int  # problems.train.limit
    sample_rows: int
    evaluate_rows: int
    seconds: dict[str, float]  # by stage
    peak_bytes: dict[str, float]  # by stage, and "limit"
    sentences: tuple[str, ...]


def prompts_for(hours: float, recipe: Recipe, machine: Mapping[str, Any], config: Mapping[str, Any]) -> Sizing:
    """How many training problems `recipe` can take in `hours`, evaluation included, and the rows side by side.

    `machine` is machine.describe(); `config` is the model's config.json. Raises BadInput for a machine that is not
    in CHIPS, for a model or an answer that does not fit into its memory, and for hours that are too few.
    """
    if not 0 < hours < float("inf"):
        raise BadInput(f"--hours {hours:g}: give a number of hours above 0")
    chip, model = chip_of(machine), ModelSize.of(config)
    limit = MEMORY_SHARE * machine["memory_bytes"]
    sampling = _work(recipe, recipe.problems.train.source, recipe.sample.max_tokens)
    judging = _work(recipe, recipe.problems.test.source, recipe.evaluate.max_tokens)
    sample_rows = _rows(chip, model, sampling, limit, "sample.max_tokens")
    evaluate_rows = _rows(chip, model, judging, limit, "evaluate.max_tokens")
    students = [recipe.of_arm(name) for name in ("student", *(arm.name for arm in recipe.arms))]
    plans = [_training_plan(model, r, _work(r, r.problems.train.source, r.sample.max_tokens), limit) for r in students]
    peak = {
        "sample": _decoding_bytes(model, sample_rows, sampling),
        "train": max(plan.peak_bytes for plan in plans),
        "evaluate": _decoding_bytes(model, evaluate_rows, judging),
    }

    sampled_apart = len({repr((r.problems.train, r.sample)) for r in students})
    samples = recipe.sample.samples_per_problem
    each = {
        "sample": sampled_apart * samples * _answer_seconds(chip, model, sample_rows, sampling),
        "train": sum(
            r.train.epochs * samples * _training_seconds(chip, model, r, plan, sampling)
            for r, plan in zip(students, plans, strict=True)
        ),
    }
    grading = GRADE_SECONDS / recipe.evaluate.workers
    fixed = _judged_answers(recipe) * (_answer_seconds(chip, model, evaluate_rows, judging) + grading)
    left = hours * 3600 * (1 - RESERVE) - fixed
    problems = int(left / sum(each.values()))
    if problems < recipe.train.rows_per_step:
        raise BadInput(
            f"--hours {hours:g}: evaluation alone takes {fixed / 3600:.1f} h here (computed), and no training step "
            "fits beside it; give more hours, or lower evaluate.samples_per_problem or problems.test.limit"
        )
    seconds = {stage: problems * cost for stage, cost in each.items()} | {"evaluate": fixed}

    def hours_of(stage: str) -> str:
        return f"{seconds[stage] / 3600:.1f} h"

    return Sizing(
        problems=problems,
        sample_rows=sample_rows,
        evaluate_rows=evaluate_rows,
        seconds=seconds,
        peak_bytes=peak | {"limit": limit},
        sentences=(
            f"{problems:,} training problems: sampling {hours_of('sample')} with {sample_rows} rows side by side, "
            f"training {hours_of('train')}, evaluation {hours_of('evaluate')}; {RESERVE:.0%} of the time is kept back.",
            f"Peak memory: sampling {peak['sample'] / 1e9:.1f} GB, training {peak['train'] / 1e9:.1f} GB, of "
            f"{limit / 1e9:.1f} GB that the GPU is trusted to have.",
            f"Assumed: {sampling.prompt} tokens a prompt, {sampling.answer:,} an answer; {BANDWIDTH_SHARE:.0%} of "
            f"{chip.bytes_per_second / 1e9:.0f} GB/s; {chip.gpu_cores} GPU cores of "
            f"{PREFILL_FLOPS_PER_GPU_CORE / 1e12:.2f} TFLOPS, in training {TRAINING_FLOPS_PER_GPU_CORE / 1e12:.2f}.",
            "Computed from published figures, not yet measured on a Mac: the first hour will tell.",
        ),
    )


def chip_of(machine: Mapping[str, Any]) -> Chip:
    """The chip that machine.describe() names. Raises BadInput for one whose speed is not known."""
    variants = CHIPS.get(machine["chip"])
    if not variants:
        raise BadInput(
            f"--hours cannot size a run on {machine['chip']}: its memory bandwidth is not known; leave --hours out and "
            "choose yourself: --set problems.train.limit=500 --set sample.rows=16 --set evaluate.rows=16"
        )
    _, gigabytes, gpu_cores = next((v for v in variants if v[0] == machine["cores"]), variants[0])
    return Chip(gigabytes * 1e9, gpu_cores)


def decoding_step_seconds(chip: Chip, model: ModelSize, rows: int, context: float) -> float:
    reading = (model.read_bytes(rows) + rows * context * model.kv_bytes) / (BANDWIDTH_SHARE * chip.bytes_per_second)
    return max(reading, rows * model.flops(context) / chip.prefill_flops) + STEP_SECONDS


@dataclass(frozen=True)
class _Work:
    """Tokens of an answer that is expected, and of the longest."""

    prompt: int
    answer: int
    longest_prompt: int
    longest_answer: int


def _work(recipe: Recipe, source: str, max_tokens: int) -> _Work:
    prompt, answer, thought = LENGTHS[source]
    expected = thought if recipe.prompt.enable_thinking else answer
    return _Work(prompt, min(expected, max_tokens), 2 * prompt, max_tokens)


def _answer_seconds(chip: Chip, model: ModelSize, rows: int, work: _Work) -> float:
    """Its prompt and its tokens. Rows are of all ages, so that at a step one has half an answer on average."""
    step = decoding_step_seconds(chip, model, rows, work.prompt + work.answer / 2)
    return work.prompt * model.flops(work.prompt / 2) / chip.prefill_flops + work.answer * step / rows


def _training_seconds(chip: Chip, model: ModelSize, recipe: Recipe, plan: TrainingPlan, work: _Work) -> float:
    """One sample once."""
    length = work.prompt + work.answer
    context = length / 2
    forward, share = model.flops(context), model.trained_share(recipe.train.num_layers)
    flops = forward + share * (forward + 4 * model.attention * context)
    if recipe.train.targets == "distribution":
        flops += forward
    if plan.gradient_checkpointing:
        flops += share * forward
    return length * flops / chip.training_flops


def _decoding_bytes(model: ModelSize, rows: int, work: _Work) -> float:
    """One row as long as can be and the others as expected: the engine admits by bytes, and puts rows back."""
    contexts = work.longest_prompt + work.longest_answer + (rows - 1) * (work.prompt + work.answer)
    return model.weight_bytes + contexts * model.kv_bytes + rows * LOGIT_BYTES * model.vocabulary


def _rows(chip: Chip, model: ModelSize, work: _Work, limit: float, setting: str) -> int:
    """The fewest rows that are about as fast as any number that fits."""
    seconds = {
        rows: _answer_seconds(chip, model, rows, work) for rows in ROWS if _decoding_bytes(model, rows, work) <= limit
    }
    if not seconds:
        raise BadInput(
            f"{setting}: the weights ({model.weight_bytes / 1e9:.1f} GB) and one answer of {work.longest_answer} "
            f"tokens need more than the {limit / 1e9:.1f} GB that can be counted on here; lower it, or take a smaller "
            "model"
        )
    return next(rows for rows, took in seconds.items() if took <= WORTHWHILE * min(seconds.values()))


def _training_plan(model: ModelSize, recipe: Recipe, work: _Work, limit: float) -> TrainingPlan:
    memory = TrainingMemory(model, recipe.train)
    longest = work.longest_prompt + work.longest_answer
    if recipe.train.too_long != "error":
        longest = min(longest, recipe.train.max_length)
    try:
        return memory.plan(min(limit, 1e9 * (recipe.train.memory_gb or limit)), longest)
    except BadInput as error:
        fits = memory.longest(limit, True) - work.longest_prompt
        mend = f", or lower sample.max_tokens (to {fits})" if fits > 0 else ""
        raise BadInput(f"{error}{mend}") from None


def _judged_answers(recipe: Recipe) -> int:
    """Answers that evaluation asks for, decodings that coincide counted twice."""
    evaluate, curve = recipe.evaluate, recipe.evaluate.curve
    students = 1 + len(recipe.arms)
    decodings = students * (2 + evaluate.two_stage) + bool(curve or evaluate.base_best)
    answers = (recipe.problems.test.limit or UNKNOWN_PROBLEMS) * evaluate.samples_per_problem * decodings
    if curve and recipe.problems.validation:
        points = len(curve.temperatures) * (1 + len(curve.base_top_p) + evaluate.two_stage + students)
        answers += (recipe.problems.validation.limit or UNKNOWN_PROBLEMS) * curve.samples_per_problem * points
    return answers
