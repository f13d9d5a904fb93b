"""What an export is measured on: texts that the student was not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlx_ssd.errors import BadInput
from mlx_ssd.export.source import Source
from mlx_ssd.records import Completion, Generation, Sample
from mlx_ssd.storage import Journal

COUNT = 8
MAX_TOKENS = 64


@dataclass(frozen=True)
class Text:
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    greedy: bool  # the student's own most likely tokens, one after the other; or else drawn


def drawn(source: Source, count: int = COUNT) -> tuple[list[Text], str]:
    """(texts, where they are from): completions that the student, or else the base, wrote of distinct problems.

    The student's of the test problems; where nothing was evaluated, the base's samples, which it was trained on.
    Raises BadInput where the run holds neither.
    """
    evaluated = sorted(source.files.evaluation.glob("*test-*.generations.jsonl"))
    places = [(path, Generation, "the student's answers to test problems") for path in evaluated]
    places += [(source.files.samples, Sample, "the samples that the student was trained on")]
    for path, kind, words in places:
        if texts := _first(Journal(path, kind).read(), count):
            return texts, words
    raise BadInput(f"{source.files.directory} holds no completions to measure an export on; run it as far as `sample`")


def _first(completions: list[Any], count: int) -> list[Text]:
    """One a problem, in the problems' order of name: the journal's own means nothing."""
    of: dict[str, Completion] = {}
    for completion in sorted(completions, key=lambda completion: completion.key):
        if completion.completion_ids:
            of.setdefault(completion.problem_id, completion)
    chosen = list(of.values())[:: max(1, len(of) // count)][:count]
    return [Text(tuple(c.prompt_ids), tuple(c.completion_ids[:MAX_TOKENS]), greedy=False) for c in chosen]
