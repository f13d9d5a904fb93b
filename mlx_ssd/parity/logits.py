"""Logits of base and student on the run's own completions, and the log-probabilities of their tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlx_ssd import heartbeat
from mlx_ssd.export.compare import compare
from mlx_ssd.export.texts import Text
from mlx_ssd.parity.row import Row, differences
from mlx_ssd.parity.sides import free_mlx, in_mlx, in_torch
from mlx_ssd.parity.subject import Subject

WHO = {"base": False, "student": True}  # whether its adapter is on
LOGIT = 1e-4
ROUNDINGS = 4e-6  # of the largest logit: 64 of float32's half units


def left_out(subject: Subject) -> None:
    return None


def rows(subject: Subject, work: Path) -> list[Row]:
    for who, adapted in WHO.items():
        model = in_mlx(subject, adapted)[0]
        for number, found in enumerate(_each(subject, lambda ids, model=model: _call_mlx(model, ids))):
            np.save(work / f"{who}-{number}.npy", found, allow_pickle=False)
            np.save(work / f"{who}-log-{number}.npy", _log_probabilities(found, subject.texts[number]))
        del model
        free_mlx()
    found_rows = []
    for who, adapted in WHO.items():
        model = in_torch(subject, adapted)[0]
        expected = list(_each(subject, lambda ids, model=model: _call_torch(model, ids)))
        del model
        found_rows += [_of_logits(subject, who, work, expected), _of_log_probabilities(subject, who, work, expected)]
    return found_rows


def saved(work: Path, who: str, subject: Subject) -> Iterator[np.ndarray]:
    """float32 [completion tokens, vocabulary] of each text, as MLX computed them."""
    for number in range(len(subject.texts)):
        yield np.load(work / f"{who}-{number}.npy", mmap_mode="r", allow_pickle=False)


def _of_logits(subject: Subject, who: str, work: Path, expected: list[np.ndarray]) -> Row:
    facts = compare(subject.texts, saved(work, who, subject), expected)
    figures = {name: facts[name] for name in ("max_abs", "mean_abs", "top1")} | {"kl": facts["kl_mean"]}
    tolerance, why = tolerance_of(expected)
    note = f"{facts['positions']} positions, {subject.way}"
    return Row(f"logits, {who}", figures, "max_abs", tolerance, why, note)


def _of_log_probabilities(subject: Subject, who: str, work: Path, expected: list[np.ndarray]) -> Row:
    import torch

    pairs = []
    for number, (logits, text) in enumerate(zip(expected, subject.texts, strict=True)):
        of_all = torch.from_numpy(logits).log_softmax(-1)
        chosen = of_all.gather(-1, torch.tensor(text.completion_ids)[:, None])[:, 0]
        pairs.append((np.load(work / f"{who}-log-{number}.npy"), chosen.numpy()))
    why = "a logit and a sum of exponentials: twice what a logit may be off"
    tolerance = 2 * tolerance_of(expected)[0]
    return Row(f"log-probabilities, {who}", differences(pairs), "max_abs", tolerance, why, subject.way)


def tolerance_of(logits: list[np.ndarray]) -> tuple[float, str]:
    """How far logits like these may be off, and why."""
    largest = max(float(np.abs(of_text).max()) for of_text in logits)
    if ROUNDINGS * largest <= LOGIT:
        return LOGIT, "float32 through all layers"
    return ROUNDINGS * largest, f"float32 through all layers: 64 half units of the largest logit, {largest:.3g}"


def _each(subject: Subject, call: Any) -> Iterator[np.ndarray]:
    """Text by text; layer by layer all in one batch, padded on the right, where causal attention keeps it unseen."""
    for batch in [subject.texts] if subject.by_layer else [(text,) for text in subject.texts]:
        ids = [[*text.prompt_ids, *text.completion_ids] for text in batch]
        width = max(map(len, ids))
        logits = call([[*row, *[0] * (width - len(row))] for row in ids])
        for row, text in enumerate(batch):
            first = len(text.prompt_ids) - 1
            yield np.array(logits[row, first : first + len(text.completion_ids)])
            heartbeat.alive()


def _call_mlx(model: Any, ids: list[list[int]]) -> Any:
    import mlx.core as mx

    return model(mx.array(ids))


def _call_torch(model: Any, ids: list[list[int]]) -> Any:
    import torch

    with torch.no_grad():
        return model(torch.tensor(ids), use_cache=False).logits


def _log_probabilities(logits: np.ndarray, text: Text) -> np.ndarray:
    import mlx.core as mx

    from mlx_ssd.training.sums import row_sums

    of_tokens = mx.array(logits)
    chosen = mx.take_along_axis(of_tokens, mx.array(text.completion_ids)[:, None], axis=-1)
    largest = of_tokens.max(axis=-1, keepdims=True)
    return np.array(chosen - largest - mx.log(row_sums(mx.exp(of_tokens - largest))))[:, 0]
