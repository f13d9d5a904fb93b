"""What a recipe takes on a machine: bytes by part and seconds, of each stage that computes.

All of it is computed from config.json, the recipe and the machine, before anything is loaded: bytes of decoding in
budget/decoding.py, of training in budget/training.py, seconds in budget/speed.py, lengths in budget/work.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any

from mlx_ssd.budget.decoding import Work, decoding_parts, rows_that_fit
from mlx_ssd.budget.described import UnusualModel
from mlx_ssd.budget.limits import is_mac, usable_bytes
from mlx_ssd.budget.model_size import ModelSize
from mlx_ssd.budget.speed import Speed
from mlx_ssd.budget.training import BLOCK, TrainingPlan, resident_parts, step_parts, trained_parameters, training_plan
from mlx_ssd.budget.work import (
    analyzed_texts,
    decodings_of_curve,
    decodings_of_test,
    problem_count,
    sampled_apart,
    student_recipes,
    work_of,
)
from mlx_ssd.errors import BadInput
from mlx_ssd.recipe import Recipe
from mlx_ssd.sections import Training

GRADE_SECONDS = 0.1  # a program
ANALYSIS = 1.5  # times the two forward passes that it is made of, at most (`python -m benchmarks.analysis`)
ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
UNEVEN = 1.2  # pairs of tokens in the training row that has most of them, of those in the mean one
WORTHWHILE = 1.05  # more rows must gain so much; they cost memory, and beyond some the arithmetic is the limit

Parts = Mapping[str, float]


@dataclass(frozen=True)
class Student:
    """One arm: how its training's work is cut, and its bytes by part."""

    recipe: Recipe
    work: Work
    plan: TrainingPlan
    parts: Parts

    @classmethod
    def of(cls, recipe: Recipe, size: ModelSize, limit: float, work: Work) -> Student:
        """Raises BadInput where its longest sample does not fit."""
        train = recipe.train
        longest = min(work.longest_prompt + work.longest_answer, train.max_length)
        memory = 1e9 * train.memory_gb if train.memory_gb else limit
        step_tokens = train.rows_per_step * (work.prompt + work.answer)
        try:
            plan = training_plan(size, train, size.weight_bytes, memory, longest, step_tokens, dtype=size.dtype)
        except BadInput as error:
            raise BadInput(f"{error} or lower sample.max_tokens") from None
        row = max(plan.row_tokens, longest)
        positions = max(row * work.answer / (work.prompt + work.answer), min(work.longest_answer, longest))
        step = step_parts(
            size,
            train,
            row,
            longest,
            plan.gradient_checkpointing,
            dtype=size.dtype,
            positions=positions,
            pairs=min(UNEVEN * work.pairs(BLOCK), longest) * row,
        )
        return cls(recipe, work, plan, resident_parts(size, train, size.weight_bytes) | step)

    def seconds(self, speed: Speed, size: ModelSize, problems: float) -> float:
        """Of training on so many problems, validation included."""
        train, validation = self.recipe.train, self.recipe.train.validation
        length = self.work.prompt + self.work.answer
        samples = problems * self.recipe.sample.samples_per_problem
        held_out = samples * validation.percent / 100 if validation else 0
        taken = train.steps * train.rows_per_step if train.steps else train.epochs * (samples - held_out)
        seconds = taken * speed.training(size, train, length, self.plan.gradient_checkpointing)
        if validation:  # of the base, every so many steps, and after the last one
            times = 1 + ceil(ceil(taken / train.rows_per_step) / validation.every_steps)
            seconds += times * held_out * validation_passes(train) * speed.forward(size, train, length)
        return seconds


@dataclass(frozen=True)
class Costs:
    """A recipe on a machine. All figures are computed."""

    recipe: Recipe
    size: ModelSize
    speed: Speed | None  # None: of a machine whose speed is not known
    memory: float  # bytes that may be used
    fused: bool  # attention as Metal has it
    sample_rows: int
    evaluate_rows: int
    students: tuple[Student, ...]

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        config: Mapping[str, Any],
        machine: Mapping[str, Any],
        speed: Speed | None,
        choose_rows: bool = False,
    ) -> Costs:
        """choose_rows: as few as are about as fast as any number that fits, whatever the recipe says; else the
        recipe's, or as many as fit. Raises BadInput for a model or an answer that does not fit into the memory,
        UnusualModel for one whose size cannot be computed."""
        try:
            size = ModelSize.of(config, computed_dtype(recipe, machine))
        except UnusualModel as error:
            raise UnusualModel(
                f"{error}, so that its size cannot be computed; `mlx-ssd run` without --hours takes it without a plan: "
                "set problems.train.limit, sample.rows and evaluate.rows yourself"
            ) from None
        memory, fused = usable_bytes(machine), is_mac(machine)
        rows = {}
        for stage, settings, source in (
            ("sample", recipe.sample, recipe.problems.train),
            ("evaluate", recipe.evaluate, recipe.problems.test),
        ):
            work = work_of(recipe, source.source, settings.max_tokens)
            limit = 1e9 * settings.memory_gb if settings.memory_gb else memory
            fits = rows_that_fit(size, work, limit, fused)
            if not fits:
                raise _too_long(stage, size, work, limit, fused)
            rows[stage] = min(fits, settings.rows)
            if choose_rows and speed:
                rows[stage] = _fewest(speed, size, work, fits)
        students = tuple(
            Student.of(own, size, memory, work_of(own, own.problems.train.source, own.sample.max_tokens))
            for own in student_recipes(recipe)
        )
        return cls(recipe, size, speed, memory, fused, rows["sample"], rows["evaluate"], students)

    @property
    def sampling(self) -> Work:
        return work_of(self.recipe, self.recipe.problems.train.source, self.recipe.sample.max_tokens)

    @property
    def judging(self) -> Work:
        return work_of(self.recipe, self.recipe.problems.test.source, self.recipe.evaluate.max_tokens)

    @cached_property
    def parts(self) -> dict[str, Parts]:
        """Bytes by stage and part; of several students those of the one that takes most."""
        adapter = max((4 * trained_parameters(self.size, s.recipe.train) for s in self.students), default=0.0)
        return {
            "sample": self._decoding("sample", self.sampling, self.sample_rows),
            "train": max((student.parts for student in self.students), key=lambda parts: sum(parts.values())),
            "evaluate": {**self._decoding("evaluate", self.judging, self.evaluate_rows), "adapter": adapter},
        }

    def _decoding(self, stage: str, work: Work, rows: int) -> Parts:
        given = getattr(self.recipe, stage).memory_gb
        return decoding_parts(self.size, rows, work, 1e9 * given if given else self.memory, self.fused)

    @property
    def peak_bytes(self) -> dict[str, float]:
        return {stage: sum(parts.values()) for stage, parts in self.parts.items()}

    @property
    def largest(self) -> Student:
        return max(self.students, key=lambda student: student.plan.peak_bytes)

    @property
    def problems(self) -> int:
        """To train on, as the recipe has it."""
        return problem_count(self.recipe.problems.train)

    @property
    def judged_seconds(self) -> float:
        """Of evaluation, which does not depend on the training problems. Only where the speed is known."""
        evaluate, curve = self.recipe.evaluate, self.recipe.evaluate.curve
        tests = problem_count(self.recipe.problems.test)
        validation = problem_count(self.recipe.problems.validation) if self.recipe.problems.validation else 0
        seconds = 0.0
        for of_test, of_curve in zip(decodings_of_test(self.recipe), decodings_of_curve(self.recipe), strict=True):
            answers = tests * evaluate.samples_per_problem * of_test
            prompts = tests
            if of_curve:
                answers += validation * curve.samples_per_problem * of_curve
                prompts += validation
            seconds += decoding_seconds(self.speed, self.size, self.judging, self.evaluate_rows, answers, prompts)
            seconds += answers * GRADE_SECONDS / evaluate.workers + self.speed.start_seconds
        return seconds

    def seconds(self, problems: int) -> dict[str, float]:
        """By stage, with so many problems to train on. Only where the speed is known."""
        sample, speed = self.recipe.sample, self.speed
        answers = problems * sample.samples_per_problem
        sampled = decoding_seconds(speed, self.size, self.sampling, self.sample_rows, answers, problems)
        training = sum(s.recipe.rounds.last * s.seconds(speed, self.size, problems) for s in self.students)
        return {
            "sample": sampled_apart(self.recipe) * (sampled + speed.start_seconds),
            "train": training + sum(s.recipe.rounds.last for s in self.students) * speed.start_seconds,
            "evaluate": self.judged_seconds,
            **({"analyze": self.analysis_seconds} if self.recipe.analyze else {}),
        }

    @property
    def analysis_seconds(self) -> float:
        """Base and student along the same answers, for every student. Only where the speed is known."""
        work, speed = self.judging, self.speed
        forward = speed.forward(self.size, self.recipe.train, work.prompt + work.answer)
        alone = 2 * ANALYSIS * analyzed_texts(self.recipe) * forward
        return len(self.students) * alone + speed.start_seconds


def decoding_seconds(speed: Speed, size: ModelSize, work: Work, rows: int, answers: float, prompts: float) -> float:
    """Each prompt is run once. While answers wait, all rows are decoded, and are of all ages, so that at a step one
    has half an answer on average; then fewer and fewer are left, down to the longest."""
    if not answers:
        return 0.0
    rows = max(min(rows, answers), 1)
    left, width = work.left(started_together=answers <= rows)
    full = max(answers * work.answer / rows - width * sum(left), 0.0)
    context = work.prompt + work.answer / 2

    def step(rows: float) -> float:
        return speed.decoding_step(size, max(round(rows), 1), context)

    drained = width * sum(step(rows * share) for share in left)
    beside = prompts * speed.prefill(size, work.prompt) + answers * speed.joining(size)
    return beside + full * step(rows) + drained


def validation_passes(train: Training) -> int:
    """How often `Speed.forward` goes over the held-out samples, which of soft targets has the base's pass in it: a
    LoRA on tokens also measures the terms of the soft loss, with a pass of the base and one more of the student."""
    return 3 if train.method == "lora" and train.targets == "tokens" else 1


def computed_dtype(recipe: Recipe, machine: Mapping[str, Any]) -> str:
    """As models.load has it: on a CPU everything is float32, for half precision does not go through BLAS."""
    if recipe.model.dtype == "auto" and not is_mac(machine):
        return "float32"
    return recipe.model.dtype


def _fewest(speed: Speed, size: ModelSize, work: Work, fits: int) -> int:
    """The fewest rows that are about as fast as any number that fits."""
    context = work.prompt + work.answer / 2
    seconds = {rows: speed.decoding_step(size, rows, context) / rows for rows in ROWS if rows <= fits}
    prompt = speed.prefill(size, work.prompt) / work.answer
    least = min(seconds.values()) + prompt
    return next(rows for rows, took in seconds.items() if took + prompt <= WORTHWHILE * least)


def _too_long(stage: str, size: ModelSize, work: Work, limit: float, fused: bool) -> BadInput:
    needed = sum(decoding_parts(size, 1, work, limit, fused).values())
    return BadInput(
        f"{stage}.max_tokens: the weights ({size.weight_bytes / 1e9:.1f} GB) and one answer of {work.longest_answer:,} "
        f"tokens take {needed / 1e9:.1f} GB (computed), more than the {limit / 1e9:.1f} GB that can be counted on "
        f"here; lower it, raise {stage}.memory_gb if there is more, or take a smaller model"
    )
