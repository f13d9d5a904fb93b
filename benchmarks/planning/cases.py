"""The configurations, and each as a plan sees it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlx_ssd import machine, models
from mlx_ssd.budget import CalibratedSpeed, ModelSize, usable_bytes
from mlx_ssd.budget.costs import Student, computed_dtype, decoding_seconds
from mlx_ssd.budget.decoding import Work, decoding_parts
from mlx_ssd.planning import calibration
from mlx_ssd.recipe import Recipe
from mlx_ssd.sections import Model

SPREAD = 0.3  # prompts are so much shorter or longer than the mean
SHAPE = 3.0  # of the gamma distribution of answers: a coefficient of variation of 0.58
STEPS = 2  # of training


@dataclass(frozen=True)
class Case:
    """A stage's work. answer == limit: all answers run to their limit."""

    name: str
    model: str  # embedded, smollm2
    stage: str
    rows: int  # decoded side by side, or tokens of a training row
    count: int  # answers, or samples trained on
    prompt: int  # tokens, the mean
    answer: int
    limit: int
    bits: int | None = None  # None: as it is stored
    settings: dict[str, Any] = field(default_factory=dict)  # of train
    slow: bool = False  # memory only

    @property
    def work(self) -> Work:
        return Work(self.prompt, self.answer, round((1 + SPREAD) * self.prompt), self.limit)


CASES = (
    Case("sample, 32 rows", "embedded", "sample", 32, 96, 60, 48, 128),
    Case("sample, 128 rows", "embedded", "sample", 128, 256, 100, 100, 256),
    Case("sample, long answers", "embedded", "sample", 16, 32, 100, 300, 768),
    Case("sample, all to the limit", "embedded", "sample", 64, 128, 200, 128, 128),
    Case("train, packed rows", "embedded", "train", 1024, 64, 60, 50, 128),
    Case("train, soft targets", "embedded", "train", 1024, 64, 60, 50, 128, settings={"targets": "distribution"}),
    Case("train, recomputed", "embedded", "train", 1024, 64, 60, 50, 128, settings={"gradient_checkpointing": True}),
    Case("train, long samples", "embedded", "train", 2048, 16, 200, 400, 700),
    Case("train, all weights", "embedded", "train", 1024, 64, 60, 50, 128, settings={"method": "full"}),
    Case("sample, 4 rows", "smollm2", "sample", 4, 8, 100, 30, 96),
    Case("sample, 16 rows", "smollm2", "sample", 16, 32, 100, 40, 128),
    Case("sample, 8 bits", "smollm2", "sample", 8, 8, 60, 16, 32, bits=8, slow=True),
    Case("sample, 4 bits", "smollm2", "sample", 8, 8, 60, 16, 32, bits=4, slow=True),
    Case("train, recomputed", "smollm2", "train", 256, 4, 60, 50, 128, settings={"gradient_checkpointing": True}),
    Case("train, 8 layers", "smollm2", "train", 512, 8, 60, 50, 128, settings={"num_layers": 8}),
    Case("train, 4 bits", "smollm2", "train", 128, 1, 60, 50, 60, bits=4, settings={"num_layers": 4}, slow=True),
)


def lengths(case: Case) -> tuple[list[int], list[int]]:
    """Of prompts and answers; the mean of the answers is the case's own, and none is above the limit."""
    random = np.random.default_rng(0)
    prompts = random.uniform(1 - SPREAD, 1 + SPREAD, case.count) * case.prompt
    if case.answer == case.limit:
        return prompts.round().astype(int).tolist(), [case.limit] * case.count
    drawn = random.gamma(SHAPE, case.answer / SHAPE, case.count)
    drawn = np.minimum(drawn * case.answer / drawn.mean(), case.limit)
    return prompts.round().astype(int).tolist(), np.maximum(drawn.round(), 1).astype(int).tolist()


@dataclass(frozen=True)
class Subject:
    """A case with its model and machine, as a plan sees them."""

    case: Case
    recipe: Recipe
    config: dict[str, Any]
    described: dict[str, Any]
    size: ModelSize

    @classmethod
    def of(cls, case: Case, place: str) -> Subject:
        settings = {f"train.{key}": value for key, value in case.settings.items()}
        if case.stage == "train":
            settings |= {"train.row_tokens": case.rows, "train.rows_per_step": case.count, "train.max_length": 4096}
        settings |= {"model.path": place, "arms": [], "train.targets": case.settings.get("targets", "tokens")}
        recipe, described = Recipe.load("quickstart", settings), machine.describe()
        config = models.read_config(Model(path=place))
        return cls(case, recipe, config, described, ModelSize.of(config, computed_dtype(recipe, described)))

    @property
    def student(self) -> Student:
        return Student.of(self.recipe, self.size, usable_bytes(self.described), self.case.work)

    def parts(self) -> dict[str, float]:
        if self.case.stage == "train":
            return dict(self.student.parts)
        memory = usable_bytes(self.described)
        return dict(decoding_parts(self.size, self.case.rows, self.case.work, memory, fused=False))

    def seconds(self, speed: CalibratedSpeed) -> float:
        case, work = self.case, self.case.work
        if case.stage == "sample":
            return decoding_seconds(speed, self.size, work, case.rows, case.count, case.count)
        length, again = work.prompt + work.answer, self.student.plan.gradient_checkpointing
        return STEPS * case.count * speed.training(self.size, self.recipe.train, length, again)

    def calibrated(self) -> CalibratedSpeed:
        rows = (self.case.rows,) if self.case.stage == "sample" else (1,)
        work = calibration.work_for(
            self.recipe,
            self.config,
            self.described,
            size=self.size,
            lengths=self.case.work,
            rows=rows,
            cut=self.student.plan,
            targets=[self.recipe.train.targets],
        )
        return CalibratedSpeed(calibration.measure(work), os.getloadavg()[0])
