"""What is compared: a student of a run, on texts, training rows and policies of that run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from mlx_ssd.controls import policy_of
from mlx_ssd.decoding.draw import Policy
from mlx_ssd.decoding.policy import ORDERS, DecodingPolicy, StagedPolicy
from mlx_ssd.export.source import Source
from mlx_ssd.export.texts import Text, drawn
from mlx_ssd.records import TrainingRow
from mlx_ssd.storage import Journal
from mlx_ssd.training.rows import length

TRAINED_ROWS = 20  # the run's shortest
ROOM = 0.6  # of the machine's memory, that float32 weights may take; a training needs some beside them
BY_LAYER_TOKENS = 1024  # of all texts together: their logits are computed at once


@dataclass(frozen=True)
class Subject:
    source: Source
    texts: tuple[Text, ...]
    origin: str  # where the texts are from, in words
    rows: tuple[TrainingRow, ...]
    by_layer: bool  # a layer at a time, as the whole in float32 would not fit

    @property
    def way(self) -> str:
        return "layer by layer" if self.by_layer else "whole"

    @property
    def sampling(self) -> DecodingPolicy:
        """The policy that drew the training samples, and that soft targets are made of."""
        return policy_of(self.source.recipe.sample.decoding)

    @property
    def policies(self) -> list[Policy]:
        """The run's own, the sampling policy in every order, an ideal student's, and greedy."""
        sampling, evaluation = self.sampling, policy_of(self.source.recipe.evaluate.decoding)
        orders = [DecodingPolicy(sampling.temperature, sampling.top_k, sampling.top_p, order) for order in ORDERS]
        chosen = [sampling, evaluation, *orders, StagedPolicy(sampling, evaluation), DecodingPolicy(0.0)]
        return list(dict.fromkeys(chosen))

    @property
    def lora(self) -> bool:
        return self.source.adapter_config["fine_tune_type"] == "lora"


def subject_of(source: Source, by_layer: bool | None = None) -> Subject:
    """`by_layer` None: where the memory asks for it. Raises BadInput where the run holds no texts."""
    if by_layer is None:
        by_layer = 4 * _parameters(source.base.path) > ROOM * psutil.virtual_memory().total
    texts, origin = drawn(source)
    rows = Journal(source.files.rows, TrainingRow).read()
    rows.sort(key=lambda row: (length(row), row.problem_id, row.sample_index))
    return Subject(source, _fitting(texts) if by_layer else tuple(texts), origin, tuple(rows[:TRAINED_ROWS]), by_layer)


def _parameters(folder: Path) -> int:
    from mlx_ssd.weights import WeightFiles

    files = WeightFiles(folder)
    return sum(math.prod(files.shape(name)) for name in files.names)


def _fitting(texts: Sequence[Text]) -> tuple[Text, ...]:
    """As many as fit into one padded batch; one at least."""
    chosen: list[Text] = []
    for text in sorted(texts, key=_tokens):
        if chosen and (len(chosen) + 1) * _tokens(text) > BY_LAYER_TOKENS:
            break
        chosen.append(text)
    return tuple(chosen)


def _tokens(text: Text) -> int:
    return len(text.prompt_ids) + len(text.completion_ids)
