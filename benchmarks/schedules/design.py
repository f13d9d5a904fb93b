"""The experiment as recipes: a run directory for each base, in which every schedule is an arm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.effect.design import (
    FIRST_TEST_PROBLEM,
    TOP_K,
    TOP_P,
    TRAINING_POLICY,
    TRAINING_PROBLEMS,
    quickstart_like,
)
from mlx_ssd.errors import BadInput
from mlx_ssd.layout import MAIN
from mlx_ssd.recipe import Recipe

FIRST_SEED = 200  # of no run of benchmarks/effect
TEMPERATURES = (0.45, 0.65, 0.9, 1.2)  # tried on validation problems, in every round
BASE_TOP_P = (0.9,)  # tried for the base beside 0.8: round 0 and the control must be strong
T_TRAIN = TRAINING_POLICY["temperature"]


@dataclass(frozen=True)
class Schedule:
    """words: what it is. set: what it changes in the main one. t_train: of each round, the last for all later ones."""

    words: str
    set: dict[str, Any]
    t_train: tuple[float, ...] = (T_TRAIN,)


SCHEDULES = {
    "paper": Schedule("hard tokens as in the paper, T 1.6 in every round", {"train.targets": "tokens"}),
    MAIN: Schedule("soft targets, T 1.6 in every round", {}),
    "falling": Schedule("soft targets, T 1.6 and then 1.0", {"rounds.temperatures": [T_TRAIN, 1.0]}, (T_TRAIN, 1.0)),
    "base-fresh": Schedule(
        "soft targets of the base in every round, T 1.6, fresh prompts, one adapter trained on",
        {"rounds.teacher": "base", "rounds.adapter": "continue", "rounds.prompts": "fresh"},
    ),
}


@dataclass(frozen=True)
class Design:
    """How large the experiment is. Smaller ones only serve to try the machinery."""

    bases: int = 3
    rounds: int = 3
    prompts: int = 480  # a round
    problems: int = 240  # test
    samples: int = 5
    validation_problems: int = 200
    validation_samples: int = 2

    def __post_init__(self) -> None:
        if self.rounds * self.prompts > TRAINING_PROBLEMS:
            raise BadInput(f"{self.rounds} rounds of {self.prompts} fresh prompts: there are {TRAINING_PROBLEMS}")
        if self.rounds < 2:
            raise BadInput("--rounds: one round is benchmarks.effect; give 2 or more")


def t_train(schedule: str, number: int) -> float:
    """The temperature at which a round's samples are drawn."""
    chosen = SCHEDULES[schedule].t_train
    return chosen[min(number, len(chosen)) - 1]


def recipe(design: Design, base: int, model: str) -> Recipe:
    """Every schedule on one base. Settings, and the kept round, are chosen on validation problems by the run itself;
    the test problems are those of benchmarks/effect, and are decoded once."""
    return quickstart_like(
        f"base-{base}",
        FIRST_SEED + base,
        model,
        train={"source": "embedded", "limit": design.prompts},
        validation={"source": "embedded", "limit": design.validation_problems},
        test={"source": "embedded", "skip": FIRST_TEST_PROBLEM, "limit": design.problems},
        evaluate={
            "decoding": {"temperature": 0.9, "top_k": TOP_K, "top_p": TOP_P},
            "curve": {
                "temperatures": TEMPERATURES,
                "base_top_p": BASE_TOP_P,
                "samples_per_problem": design.validation_samples,
            },
        },
        samples=design.samples,
        arms=[
            {"name": name, "set": schedule.set} for name, schedule in SCHEDULES.items() if name != MAIN
        ],
        rounds={"count": design.rounds, "teacher": "previous", "adapter": "fresh", "prompts": "same"},
        analyze=None,
    )
