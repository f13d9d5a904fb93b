"""The experiment as recipes: which bases, seeds, students and controls, and where settings are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlx_ssd.assets import problems_path
from mlx_ssd.recipe import Recipe

# Of the test problems the first 200 are those of `recipes/quickstart.yaml`, which have been looked at often.
FIRST_TEST_PROBLEM = 200
TRAINING_PROBLEMS = 2000
TUNING_SEED = 100  # of no run whose test results count

TRAINING_POLICY = {"temperature": 1.6, "top_k": 20, "top_p": 0.8}
TOP_K, TOP_P = 20, 0.8
TEMPERATURES = (0.6, 0.75, 0.9, 1.05, 1.2, 1.35, 1.5)  # tried on validation problems for every arm
BASE_TOP_P = (0.9, 1.0)  # tried for the base beside 0.8: its control must be strong

MAIN_KIND = "soft"
KINDS: dict[str, dict[str, Any]] = {
    "soft": {"train.targets": "distribution"},
    "hard": {"train.targets": "tokens"},
    "t1": {
        "train.targets": "tokens",
        "sample.decoding.temperature": 1.0,
        "sample.decoding.top_k": 0,
        "sample.decoding.top_p": 1.0,
    },
}
SHARES = {"1": 1, "1/3": 3, "1/9": 9}  # of the prompts: the divisor


@dataclass(frozen=True)
class Design:
    """How large the experiment is. Smaller ones only serve to try the machinery."""

    bases: int = 3
    seeds: int = 3
    prompts: int = 1200
    problems: int = 240  # test
    samples: int = 8
    tuning_problems: int = 240  # validation
    tuning_samples: int = 2

    def runs(self) -> list[tuple[int, int]]:
        """(base, index of the seed): every base once before any is repeated."""
        return [(base, index) for index in range(self.seeds) for base in range(self.bases)]

    def seed(self, base: int, index: int) -> int:
        """No two runs share one, so that the seeds of a base are its own."""
        return 10 * base + index


def student_name(kind: str, share: str) -> str:
    """The arm's name in a run: soft-9 is trained on a ninth of the prompts."""
    if (kind, share) == (MAIN_KIND, "1"):
        return "student"
    return kind if share == "1" else f"{kind}-{SHARES[share]}"


def students() -> dict[str, tuple[str, str]]:
    """name -> (kind, share), the main student first."""
    return {student_name(kind, share): (kind, share) for kind in KINDS for share in SHARES}


def tuning_recipe(design: Design, base: int, model: str) -> Recipe:
    """Chooses decodings on validation problems: of base 0 with its three full students, of the others for the
    base alone, whose student is a token one. No test problem is read: two validation problems stand in."""
    whole = base == 0
    arms = [_arm(kind, kind, {}) for kind in KINDS if kind != MAIN_KIND] if whole else []
    validation = {"source": "jsonl", "path": str(problems_path("validation"))}
    return quickstart_like(
        f"tune-base-{base}",
        TUNING_SEED + base,
        model,
        train={"source": "embedded", "limit": design.prompts if whole else min(16, design.prompts)},
        test=validation | {"limit": 2},
        evaluate={
            "two_stage": whole,
            "curve": {
                "temperatures": TEMPERATURES,
                "base_top_p": BASE_TOP_P,
                "samples_per_problem": design.tuning_samples,
            },
        },
        samples=design.samples,
        arms=arms,
        validation=validation | {"limit": design.tuning_problems},
    )


def run_recipe(design: Design, base: int, index: int, model: str, frozen: dict[str, Any]) -> Recipe:
    """All students of one base and seed, and the controls, on the test problems at the frozen decodings.
    Each seed has a part of the prompts of its own, overlapping with the others': with up to three seeds the same
    parts, so that fewer are the first of more."""
    arms = []
    for name, (kind, share) in students().items():
        if name != "student":
            limit = {} if share == "1" else {"problems.train.limit": design.prompts // SHARES[share]}
            temperature = {"evaluate.decoding.temperature": frozen["temperature"][kind]}
            arms.append(_arm(name, kind, limit | temperature))
    skip = index * ((TRAINING_PROBLEMS - design.prompts) // max(design.seeds - 1, 2))
    return quickstart_like(
        run_name(design, base, index),
        design.seed(base, index),
        model,
        train={"source": "embedded", "skip": skip, "limit": design.prompts},
        test={"source": "embedded", "skip": FIRST_TEST_PROBLEM, "limit": design.problems},
        evaluate={
            "decoding": _decoding(frozen["temperature"][MAIN_KIND]),
            "base_best": frozen["base_best"][str(base)],
        },
        samples=design.samples,
        arms=arms,
    )


def run_name(design: Design, base: int, index: int) -> str:
    return f"base-{base}-seed-{design.seed(base, index)}"


def _decoding(temperature: float) -> dict[str, Any]:
    return {"temperature": temperature, "top_k": TOP_K, "top_p": TOP_P}


def _arm(name: str, kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "set": KINDS[kind] | settings}


def quickstart_like(
    name: str,
    seed: int,
    model: str,
    *,
    train: dict[str, Any],
    test: dict[str, Any],
    evaluate: dict[str, Any],
    samples: int,
    arms: list[dict[str, Any]],
    validation: dict[str, Any] | None = None,
    **more: Any,
) -> Recipe:
    """The recipe of `quickstart`, written out: what it says there may change, this may not. more: further sections."""
    return Recipe.model_validate(
        {
            "name": name,
            "seed": seed,
            "model": {"path": model},
            "problems": {"train": train, "validation": validation, "test": test},
            "sample": {"decoding": TRAINING_POLICY, "max_tokens": 128, "rows": 128},
            "train": {
                **{key.removeprefix("train."): value for key, value in KINDS[MAIN_KIND].items()},
                "learning_rate": 2e-3,
                "epochs": 3,
                "rows_per_step": 16,
                "max_length": 512,
            },
            "evaluate": {
                "decoding": _decoding(0.9),
                "samples_per_problem": samples,
                "pass_at": [1, 5],
                "max_tokens": 128,
                "rows": 128,
                "workers": 1,
                **evaluate,
            },
            "arms": arms,
            **more,
        }
    )
