"""The measure of every export: the student's logits with its adapter on, and its base's, as MLX computes them.

They are written to disk once for all targets, so that the student and an export never stand in memory together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlx_ssd import heartbeat, models
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.export.source import Source
from mlx_ssd.export.texts import MAX_TOKENS, Text, drawn
from mlx_ssd.storage import atomic_directory, hash_json, read_json

BASE, STUDENT = "base", "student"


class MlxReader:
    """A model of mlx-lm."""

    engine = "mlx"

    def __init__(self, model: Any):
        self.model = model

    def logits(self, text: Text) -> np.ndarray:
        import mlx.core as mx

        ids = mx.array([[*text.prompt_ids, *text.completion_ids]])
        found = np.array(self.model(ids)[0, len(text.prompt_ids) - 1 : -1].astype(mx.float32))
        heartbeat.alive()
        return found


class Reference:
    """Texts, and both models' logits on them: `logits(STUDENT)` gives [completion tokens, vocabulary] for each."""

    def __init__(self, folder: Path):
        facts = read_json(folder / "texts.json")
        self.texts = [Text(tuple(t["prompt_ids"]), tuple(t["completion_ids"]), t["greedy"]) for t in facts["texts"]]
        self.origin: str = facts["origin"]
        self._folder = folder

    def logits(self, who: str) -> Iterator[np.ndarray]:
        for number in range(len(self.texts)):
            yield np.load(self._folder / f"{who}-{number}.npy", mmap_mode="r", allow_pickle=False)


def reference_of(source: Source) -> Reference:
    """Computed where the run does not hold it yet."""
    texts, origin = drawn(source)
    how = [source.recipe.model.dtype, "float32 whole"]  # what was once computed in TF32 is not taken for it
    key = hash_json([source.revision, *how, [[t.prompt_ids, t.completion_ids] for t in texts]])
    folder = source.files.directory / "export" / ".reference" / key[:16]
    if not folder.exists():
        with atomic_directory(folder) as partial:
            _compute(source, texts, origin, partial)
    return Reference(folder)


def _compute(source: Source, texts: Sequence[Text], origin: str, folder: Path) -> None:
    student, tokenizer = models.load(source.base, source.recipe.model.dtype, source.adapter)
    texts = [*texts, *_greedy(student, tokenizer, texts)]
    for who in (STUDENT, BASE):
        model = student if who == STUDENT else models.load(source.base, source.recipe.model.dtype)[0]
        student = None  # so that two models never stand in memory together
        for number, text in enumerate(texts):
            np.save(folder / f"{who}-{number}.npy", MlxReader(model).logits(text), allow_pickle=False)
        del model
    facts = {"origin": origin, "texts": [vars(text) for text in texts]}
    (folder / "texts.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")


def _greedy(model: Any, tokenizer: Any, texts: Sequence[Text]) -> list[Text]:
    from mlx_ssd.sampling.engine import Request, generate

    policy = DecodingPolicy(temperature=0.0)
    requests = [Request(i, list(t.prompt_ids), policy, (0, 0), MAX_TOKENS) for i, t in enumerate(texts)]
    done = sorted(generate(model, requests, tokenizer.eos_token_ids, rows=len(texts)), key=lambda c: c.key)
    return [Text(texts[c.key].prompt_ids, tuple(c.completion_ids), greedy=True) for c in done]
