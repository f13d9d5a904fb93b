"""What validations would have found, made up: files of a run without models."""

from pathlib import Path
from typing import Any

from mlx_ssd.layout import BASE, MAIN, RunFiles
from mlx_ssd.storage import write_json

DIVERSITY = {"pass_gap": 0.2, "distinct": 0.8, "fork_entropy": 1.0}
NOTHING = (-0.04, 0.06)  # an interval that covers zero
GAIN = (0.01, 0.05)


def validation(
    number: int,
    rate: float = 0.5,
    differences: dict[int, tuple[float, float]] | None = None,
    temperature: float = 0.9,
    **diversity: float,
) -> dict[str, Any]:
    """Only what a decision reads. differences: (low, high) to earlier rounds; others cover zero."""
    intervals = {n: NOTHING for n in range(number)} | (differences or {})
    return {
        "round": number,
        "suite": "embedded-validation",
        "pass_at": {"1": {"mean": rate, "low": rate - 0.1, "high": rate + 0.1}},
        "decoding": {"temperature": temperature},
        "diversity": {name: of for name, of in (DIVERSITY | diversity).items() if number or name != "fork_entropy"},
        "diversity_of_base": {"fork_entropy": DIVERSITY["fork_entropy"]} if number else {},
        "differences": {str(n): {"mean": (a + b) / 2, "low": a, "high": b} for n, (a, b) in intervals.items()},
    }


def write(directory: Path, *found: dict[str, Any], arm: str = MAIN) -> None:
    for number, one in enumerate(found):
        files = RunFiles(directory, arm, number=number) if number else RunFiles(directory, BASE, number=0)
        write_json(files.validation, one)
