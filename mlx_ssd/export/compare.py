"""How far one model's logits are from another's, on the same texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mlx_ssd.errors import WorkFailed
from mlx_ssd.export.texts import Text

CLEAR_MARGIN = 0.1  # of the reference's first logit over its second: below it rounding may well decide


def compare(texts: Sequence[Text], found: Iterable[np.ndarray], reference: Iterable[np.ndarray]) -> dict[str, Any]:
    """Figures over every position of the completions; logits are float32 [completion tokens, vocabulary] a text.

    max_abs, mean_abs of the logits' difference; largest, the largest of the reference's; kl_mean, kl_p99 of
    KL(reference || found) in nats; top1, the share of positions with the same first token, and clear_top1, that of
    those whose margin is clear (absent where none is);
    greedy_match, of the reference's greedy texts the mean number of tokens up to the first that differs, and
    greedy_tokens, how many there are; perplexity and reference_perplexity on the drawn texts.
    Raises WorkFailed where the shapes differ.
    """
    furthest = largest = total = 0.0
    count = 0
    kl: list[np.ndarray] = []
    same: list[np.ndarray] = []
    clear: list[np.ndarray] = []
    matches, lengths = [], []
    losses: dict[str, list[np.ndarray]] = {"found": [], "reference": []}
    for text, a, b in zip(texts, found, reference, strict=True):
        if a.shape != b.shape:
            raise WorkFailed(f"it gives logits of {list(a.shape)} tokens and words, and the student of {list(b.shape)}")
        a, b = a.astype(np.float64), b.astype(np.float64)
        difference = np.abs(a - b)
        furthest, largest = max(furthest, _max(difference)), max(largest, _max(np.abs(b)))
        total, count = total + difference.sum(), count + difference.size
        log_a, log_b = _log_softmax(a), _log_softmax(b)
        kl.append((np.exp(log_b) * (log_b - log_a)).sum(-1))
        first = a.argmax(-1)
        same.append(first == b.argmax(-1))
        two = np.partition(b, -2, axis=-1)[:, -2:]
        clear.append(two[:, 1] - two[:, 0] > CLEAR_MARGIN)
        tokens = np.array(text.completion_ids)
        if text.greedy:
            wrong = np.flatnonzero(first != tokens)
            matches.append(int(wrong[0]) if len(wrong) else len(tokens))
            lengths.append(len(tokens))
        else:
            for name, log in (("found", log_a), ("reference", log_b)):
                losses[name].append(-np.take_along_axis(log, tokens[:, None], -1)[:, 0])
    agree, margin, divergence = np.concatenate(same), np.concatenate(clear), np.concatenate(kl)
    facts: dict[str, Any] = {"positions": len(agree), "max_abs": furthest, "mean_abs": total / count}
    facts["largest"] = largest
    facts |= {"kl_mean": _number(divergence.mean()), "kl_p99": _number(np.quantile(divergence, 0.99))}
    facts |= {"top1": float(agree.mean()), "clear_positions": int(margin.sum())}
    if margin.any():
        facts["clear_top1"] = float(agree[margin].mean())
    if matches:
        facts |= {"greedy_match": float(np.mean(matches)), "greedy_tokens": float(np.mean(lengths))}
    if losses["found"]:
        facts["perplexity"] = _number(np.exp(np.concatenate(losses["found"]).mean()))
        facts["reference_perplexity"] = _number(np.exp(np.concatenate(losses["reference"]).mean()))
    return facts


def _max(values: np.ndarray) -> float:
    return float(np.nan_to_num(values, nan=np.inf).max())  # what is no number is as wrong as can be


def _number(value: Any) -> float:
    return float(np.nan_to_num(value, nan=np.inf))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
