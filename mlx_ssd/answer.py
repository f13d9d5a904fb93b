"""`mlx-ssd try`: base and students answer the same prompt side by side, with the run's evaluation decoding."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlx_ssd import arms, models, thinking
from mlx_ssd.child import exit_code
from mlx_ssd.controls import policy_of
from mlx_ssd.decoding.rng import sample_key
from mlx_ssd.layout import BASE, RunFiles
from mlx_ssd.prompts import render
from mlx_ssd.recipe import Recipe
from mlx_ssd.sampling.engine import Request, generate

STREAM = "try"


def answers(files: RunFiles, prompt: str, sample_index: int) -> dict[str, str]:
    """Each arm's decoded answer. All arms draw with the same uniforms."""
    recipe = Recipe.load(files.recipe)
    source = models.locate(recipe.model)
    said = {}
    for arm in (arms.base(recipe, files.directory), *arms.students(recipe, files.directory)):
        adapter = arm.files.adapter if arm.name != BASE else None
        if adapter and not adapter.exists():
            continue
        model, tokenizer = models.load(source, recipe.model.dtype, adapter)
        request = Request(
            arm.name,
            render(tokenizer, prompt, recipe.prompt),
            policy_of(arm.recipe.evaluate.decoding),
            sample_key(recipe.seed, STREAM, prompt, sample_index),
            recipe.evaluate.max_tokens,
        )
        (completed,) = generate(model, [request], tokenizer.eos_token_ids, rows=1)
        (said[arm.name],) = thinking.decode(tokenizer, [request.prompt_ids], [completed.completion_ids])
        if completed.finish_reason != "stop":
            said[arm.name] += f"\n[cut at {recipe.evaluate.max_tokens} tokens]"
        del model  # the next one is loaded: two would be in memory at once
    return said


def main(run_dir: str, prompt: str, sample_index: str) -> None:
    said = answers(RunFiles(Path(run_dir)), prompt.replace("\\n", "\n"), int(sample_index))
    grid = Table(*said, expand=True, show_lines=False)
    grid.add_row(*(Text(text) for text in said.values()))
    Console().print(grid)


if __name__ == "__main__":
    models.without_pytorch()
    sys.exit(exit_code(lambda: main(*sys.argv[1:])))
