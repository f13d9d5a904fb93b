"""The table of docs/planning.md, recomputed."""

import re
from pathlib import Path

import pytest

from mlx_ssd import planning
from mlx_ssd.budget import KNOWN_CONFIGS, ChipSpeed, chip_of
from mlx_ssd.errors import BadInput
from mlx_ssd.planning.plan import STAGES, injected
from mlx_ssd.recipe import Recipe

TEXT = (Path(__file__).parents[2] / "docs" / "planning.md").read_text(encoding="utf-8")
MODELS = {"Qwen3-8B": "mlx-community/Qwen3-8B-4bit", "Qwen3-30B-A3B": "mlx-community/Qwen3-30B-A3B-4bit"}
MACHINES = ((16, "M4"), (24, "M4 Pro"), (36, "M4 Max"), (64, "M4 Max"), (128, "M4 Max"))
WHAT = ("mac-4b-instruct", "mac-4b-thinking", "Qwen3-8B", "Qwen3-30B-A3B")


def row(what: str, gigabytes: int, chip: str) -> str:
    """A line of the table: of a recipe, or of mac-4b-instruct with another --model."""
    model = {"model.path": MODELS[what], "model.revision": None} if what in MODELS else {}
    recipe = Recipe.load("mac-4b-instruct" if model else what, model)
    config, described = KNOWN_CONFIGS[recipe.model.path], injected(gigabytes, chip)
    speed, cells = ChipSpeed(chip_of(described)), [what, str(gigabytes), chip]
    try:
        sized = planning.sized(recipe, config, described, speed, 8)
    except BadInput:
        return " | ".join([*cells, *["-"] * 6])
    costs = planning.plan_for(sized, config, described, speed, hurried=True).costs
    cut = costs.largest.plan
    cells += [f"{sized.problems.train.limit:,}", str(costs.sample_rows)]
    cells.append(f"{cut.row_tokens:,}{', recomputed' if cut.gradient_checkpointing else ''}")
    return " | ".join([*cells, *(f"{costs.peak_bytes[stage] / 1e9:.1f}" for stage in STAGES)])


@pytest.mark.parametrize("what", WHAT)
def test_the_documented_sizes_are_what_is_computed(what):
    found = re.findall(rf"^\| ({what} \| .*) \|$", TEXT, re.M)
    assert found == [row(what, *machine) for machine in MACHINES]


if __name__ == "__main__":  # the table itself
    for what in WHAT:
        for machine in MACHINES:
            print(f"| {row(what, *machine)} |")
