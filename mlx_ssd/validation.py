"""A round on the validation problems: how it did, and how diverse it still is. rounds.py decides by it.

A round is decoded at every temperature of the curve and counts at its best one, as the base does: rounds compose
temperatures, and one temperature for all would measure that alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from mlx_ssd import statistics
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.errors import WorkFailed
from mlx_ssd.records import Generation
from mlx_ssd.scoring import BOOTSTRAP_SEED, pass_at
from mlx_ssd.storage import hash_json

Found = dict[str, Any]  # validation.json, or a part of it


def measured(
    tried: Sequence[tuple[DecodingPolicy, list[tuple[int, int]]]], resamples: int
) -> tuple[int, Found]:
    """Which of the decodings is best by pass@1, of equals the first, and what it came to.

    tried: (policy, (samples, passes) of each problem). Raises WorkFailed where some problem has no graded sample.
    """
    for policy, counts in tried:
        if not all(samples for samples, _ in counts):
            raise WorkFailed(
                f"validation at {policy.name()}: no sample of some problem could be graded; run again, and they are "
                "graded again"
            )
    rates = [float(pass_at(counts, 1).mean()) for _, counts in tried]
    best = max(range(len(tried)), key=rates.__getitem__)
    policy, counts = tried[best]
    ks = sorted({1, min(samples for samples, _ in counts)})
    found = {
        "decoding": asdict(policy),
        "pass_at": {str(k): _interval(pass_at(counts, k), resamples) for k in ks},
        "tried": [
            {"decoding": of.name(), "temperature": of.temperature, "pass@1": rate}
            for (of, _), rate in zip(tried, rates, strict=True)
        ],
        "counts": [list(count) for count in counts],
    }
    return best, found


def diversity(pass_at_found: Found, answers: Iterable[Generation]) -> Found:
    """pass@n - pass@1, and the share of different answers among a problem's. One answer to each says nothing of it."""
    found: Found = {}
    (_, first), *more = sorted((int(k), interval["mean"]) for k, interval in pass_at_found.items())
    if more:
        found["pass_gap"] = more[-1][1] - first
    of: dict[str, list[str]] = {}
    for answer in answers:
        of.setdefault(answer.problem_id, []).append(hash_json(answer.completion_ids))
    shares = [len(set(several)) / len(several) for several in of.values() if len(several) > 1]
    if shares:
        found["distinct"] = float(np.mean(shares))
    return found


def differences(earlier: Sequence[Found], now: Found, resamples: int) -> Found:
    """pass@1 of this round less that of the base and of each round before, problem by problem: {round: interval}."""
    return {str(found["round"]): _interval(_rates(now) - _rates(found), resamples) for found in earlier}


def _rates(found: Found) -> np.ndarray:
    return pass_at([tuple(count) for count in found["counts"]], 1)


def _interval(values: np.ndarray, resamples: int) -> dict[str, float]:
    found = statistics.bootstrap_mean(values, resamples, BOOTSTRAP_SEED)
    return {"mean": found.mean, "low": found.low, "high": found.high}
