"""`python -m mlx_ssd.probing DIR`: complete and grade what the question in DIR asks, in a process of its own.

On Linux the BLAS library must be in place before a process starts, and a Metal out-of-memory abort ends one.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mlx_ssd import models
from mlx_ssd.child import exit_code
from mlx_ssd.controls import Entry
from mlx_ssd.evaluation import generate, grade
from mlx_ssd.probing.question import Question
from mlx_ssd.progress import duration
from mlx_ssd.records import Generation, Problem
from mlx_ssd.storage import Journal


def complete(question: Question) -> None:
    """Generations first, saved, all decodings in one pass over the prompts; then grades."""
    recipe, problems, entries = question.recipe, question.problems(), question.entries()
    source = models.locate(recipe.model)
    loaded = []

    def load() -> tuple:
        if not loaded:
            loaded.append(models.load(source, recipe.model.dtype))
        return loaded[0]

    def draw(some: list[Entry], of: list[Problem], label: str) -> dict[str, float]:
        paths = [(entry.generations, entry.policy) for entry in some]
        return generate(paths, of, question.samples, recipe, load, source.revision, label)

    missing = _missing(question, problems)
    if missing:
        print(
            f"probe: {missing:,} completions of at most {recipe.evaluate.max_tokens} tokens to draw: {len(entries)} "
            f"decodings of {len(problems)} problems, {question.samples} samples each",
            file=sys.stderr,
        )
        # One batch of them is the measure for the rest: nothing else knows this model on this machine.
        few = problems[: -(-recipe.evaluate.rows // question.samples)]
        first = draw(entries[:1], few, "probe, first batch")
        if first["completions"] and missing > first["completions"]:
            rest = (missing - first["completions"]) * first["seconds"] / first["completions"]
            print(f"probe: about {duration(rest)} at the pace of the first batch", file=sys.stderr)
        draw(entries, problems, "probe")
    # What an earlier probe of more problems drew here is in the journals too.
    pairs = [(entry.generations, entry.grades) for entry in entries]
    grade(pairs, question.source_problems(), recipe, models.load_tokenizer(source), "probe")


def _missing(question: Question, problems: list[Problem]) -> int:
    wanted = {(problem.id, index) for problem in problems for index in range(question.samples)}
    held = ({g.key for g in Journal(entry.generations, Generation).each()} for entry in question.entries())
    return sum(len(wanted - keys) for keys in held)


if __name__ == "__main__":
    models.without_pytorch()
    sys.exit(exit_code(lambda: complete(Question.load(Path(sys.argv[1])))))
