"""How many problems fit into a night: bytes and seconds of a run from the model's config.json, the recipe and the chip.

All of it is computed before anything is loaded, and none of it has been measured on a Mac yet. With P the
parameters, A = layers x heads x head size, c a token's context, B the rows decoded side by side:

    weights W        = P x bits / 8; affine groups add a 16-bit scale and bias to each
    KV bytes a token = 2 x layers x key-value heads x head size x 2 (bfloat16)
    F(c)             = 2 P + 4 A c FLOPs of a token; of a mixture only the active experts count
    decoding         = max((W + B c KV) / (70 % of the bandwidth), B F(c) / prefill rate) + 1 ms a step of B tokens
    training         = (F(s) + S (F(s) + 4 A s)) / training rate a token, with S the share of the layers that are
                       trained: no gradient goes below the lowest; s is the keys that are computed for a query, all of
                       a short sample, of a longer one (c + 256) / 2, and then 6 A s (training/blockwise.py). Soft
                       targets add a forward pass, F(s), recomputed layers S F(s), the gradient of all weights S F(s)
    training bytes   : budget/training.py

For one row the decoding formula gives 145 tokens/s on an M4 Max and 44 on an M3 Pro for Qwen3-4B in 4 bits;
published are 135 (mlx-lm's BENCHMARKS.md) and 45 (mlx-lm issue 1569). For many rows nothing is published.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_ssd.budget.chips import PREFILL_FLOPS_PER_GPU_CORE, TRAINING_FLOPS_PER_GPU_CORE, Chip, chip_of
from mlx_ssd.budget.model_size import ModelSize
from mlx_ssd.budget.training import BLOCK, TrainingPlan, training_plan
from mlx_ssd.errors import BadInput
from mlx_ssd.recipe import Recipe, Training

BANDWIDTH_SHARE = 0.7  # of what Apple publishes
STEP_SECONDS = 0.001  # launching kernels and drawing tokens, a decoding step
MEMORY_SHARE = 0.65  # of the machine's; macOS lets the GPU have 67 to 75 %
LOGIT_BYTES = 20  # a row of a decoding step and vocabulary entry

# Mean tokens of a prompt, of an answer, and of an answer with its thinking: guesses. The longest prompt is taken as
# twice the mean one, and no answer is longer than max_tokens.
LENGTHS = {
    "embedded": (100, 400, 3000), "jsonl": (300, 1000, 8000), "rstar_coder": (500, 1500, 12000),
    "livecodebench": (600, 1500, 12000), "humaneval": (200, 300, 3000), "mbpp": (150, 250, 3000),
    "gsm8k": (150, 250, 2500),
}  # fmt: skip
GRADE_SECONDS = 0.1  # a program
UNKNOWN_PROBLEMS = 100  # of a test set whose size the recipe does not say
RESERVE = 0.1  # of the hours: loading, checkpoints, heat
ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
WORTHWHILE = 1.05  # more rows must gain so much; they cost memory, and beyond some the arithmetic is the limit
MOST_PROBLEMS = 10**6


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
    students = [_Student.of(recipe.of_arm(name), model, limit) for name in _students(recipe)]
    largest = max(students, key=lambda student: student.plan.peak_bytes).plan
    peak = {
        "sample": _decoding_bytes(model, sample_rows, sampling),
        "train": largest.peak_bytes,
        "evaluate": _decoding_bytes(model, evaluate_rows, judging),
    }

    sampled_apart = len({repr((s.recipe.problems.train, s.recipe.sample)) for s in students})
    sampled = sampled_apart * recipe.sample.samples_per_problem * _answer_seconds(chip, model, sample_rows, sampling)
    grading = GRADE_SECONDS / recipe.evaluate.workers
    judged = _judged_answers(recipe) * (_answer_seconds(chip, model, evaluate_rows, judging) + grading)

    def seconds_of(problems: int) -> dict[str, float]:
        training = sum(student.training_seconds(chip, model, problems) for student in students)
        return {"sample": problems * sampled, "train": training, "evaluate": judged}

    least = recipe.train.rows_per_step
    there = hours * 3600 * (1 - RESERVE)
    problems = bisect_right(range(MOST_PROBLEMS), there, key=lambda n: sum(seconds_of(n).values())) - 1
    if problems < least:
        raise BadInput(
            f"--hours {hours:g}: evaluation alone takes {judged / 3600:.1f} h here (computed), and no training step "
            "fits beside it; give more hours, or lower evaluate.samples_per_problem or problems.test.limit"
        )
    seconds = seconds_of(problems)

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
            f"Training takes rows of {largest.row_tokens:,} tokens"
            + (" and recomputes activations." if largest.gradient_checkpointing else "."),
            f"Assumed: {sampling.prompt} tokens a prompt, {sampling.answer:,} an answer; {BANDWIDTH_SHARE:.0%} of "
            f"{chip.bytes_per_second / 1e9:.0f} GB/s; {chip.gpu_cores} GPU cores of "
            f"{PREFILL_FLOPS_PER_GPU_CORE / 1e12:.2f} TFLOPS, in training {TRAINING_FLOPS_PER_GPU_CORE / 1e12:.2f}.",
            "Computed from published figures, not yet measured on a Mac: the first hour will tell.",
        ),
    )


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


@dataclass(frozen=True)
class _Student:
    recipe: Recipe
    work: _Work
    plan: TrainingPlan

    @classmethod
    def of(cls, recipe: Recipe, model: ModelSize, limit: float) -> _Student:
        work, train = _work(recipe, recipe.problems.train.source, recipe.sample.max_tokens), recipe.train
        longest = min(work.longest_prompt + work.longest_answer, train.max_length)
        memory = 1e9 * train.memory_gb if train.memory_gb else limit
        step_tokens = train.rows_per_step * (work.prompt + work.answer)
        try:
            plan = training_plan(model, train, model.weight_bytes, memory, longest, step_tokens)
        except BadInput as error:
            raise BadInput(f"{error} or lower sample.max_tokens") from None
        return cls(recipe, work, plan)

    def training_seconds(self, chip: Chip, model: ModelSize, problems: int) -> float:
        """Of so many problems, validation included."""
        train, validation = self.recipe.train, self.recipe.train.validation
        samples = problems * self.recipe.sample.samples_per_problem
        held_out = samples * validation.percent / 100 if validation else 0
        taken = train.steps * train.rows_per_step if train.steps else train.epochs * (samples - held_out)
        seconds = taken * _training_seconds(chip, model, train, self.work, self.plan.gradient_checkpointing)
        if validation:
            times = 1 + taken / train.rows_per_step / validation.every_steps
            seconds += times * held_out * _forward_seconds(chip, model, train, self.work)
        return seconds


def _keys(length: int) -> float:
    """That are computed for a query of a sample in training, on average."""
    return (length + BLOCK) / 2 if length > BLOCK else length


def _forward_seconds(chip: Chip, model: ModelSize, train: Training, work: _Work) -> float:
    """The loss of one sample."""
    length = work.prompt + work.answer
    passes = 2 if train.targets == "distribution" else 1
    return passes * length * model.flops(_keys(length)) / chip.training_flops


def _training_seconds(chip: Chip, model: ModelSize, train: Training, work: _Work, recompute: bool) -> float:
    """One sample once."""
    length = work.prompt + work.answer
    keys = _keys(length)
    forward, share = model.flops(keys), model.trained_share(train.num_layers)
    passes = 1 + recompute + (train.method == "full")
    backward = share * (passes * forward + (6 if length > BLOCK else 4) * model.attention * keys)
    return _forward_seconds(chip, model, train, work) + length * backward / chip.training_flops


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


def _students(recipe: Recipe) -> list[str]:
    return ["student", *(arm.name for arm in recipe.arms)]


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
