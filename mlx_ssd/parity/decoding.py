"""The decoding distribution and its draws, from one and the same logits and uniforms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mlx_ssd import heartbeat
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.decoding.rng import sample_key, uniform_u32
from mlx_ssd.parity.logits import saved
from mlx_ssd.parity.row import Row
from mlx_ssd.parity.subject import Subject

PROBABILITY = 2e-6
EDGE = 1e-6  # a rank whose cumulative mass is as near to top-p may fall on either side of it
MILLION = 1_000_000
AT_ONCE = 100_000
CANDIDATES = 48  # the largest logits of a position: more than top-k keeps, so that the ranking counts


def left_out(subject: Subject) -> None:
    return None


def rows(subject: Subject, work: Path) -> list[Row]:
    return [_distribution(subject, work), _draws(subject, work), _million_draws(subject, work)]


def _distribution(subject: Subject, work: Path) -> Row:
    import mlx.core as mx
    import torch

    from mlx_ssd.decoding.policy_mlx import probabilities as in_mlx
    from mlx_ssd.torch_ref.distribution import probabilities as in_torch

    largest = total = kl = same = aside = count = 0.0
    for logits in saved(work, "student", subject):
        for policy in subject.policies:
            found = np.array(in_mlx(policy, mx.array(np.array(logits)))).astype(np.float64)
            expected, distance = in_torch(policy, torch.from_numpy(np.array(logits)))
            clear = distance.numpy() > EDGE
            found, expected = found[clear], expected.numpy()[clear]
            difference = np.nan_to_num(np.abs(found - expected), nan=np.inf)
            largest, total = max(largest, float(difference.max(initial=0))), total + difference.sum()
            inside = expected > 0
            ratio = np.log(np.where(inside, expected, 1)) - np.log(np.maximum(np.where(inside, found, 1), 1e-300))
            kl, same = kl + (expected * ratio).sum(), same + (found.argmax(-1) == expected.argmax(-1)).sum()
            aside, count = aside + (~clear).sum(), count + len(found)
            heartbeat.alive()
    vocabulary = logits.shape[-1]
    figures = {"max_abs": largest, "mean_abs": total / (count * vocabulary), "kl": kl / count, "top1": same / count}
    why = "20 bits of the exponent, in integers, beside a plain softmax in float64 (docs/decoding.md)"
    note = f"{len(subject.policies)} policies" + (f", {aside:.0f} rows on the edge of top-p set aside" if aside else "")
    return Row("decoding distribution", figures, "max_abs", PROBABILITY, why, note)


def _draws(subject: Subject, work: Path) -> Row:
    key, drawn, differ = sample_key(subject.source.recipe.seed, "parity", "all tokens", 0), 0, 0
    for logits in saved(work, "student", subject):
        for policy in subject.policies:
            u32 = uniform_u32(key, np.arange(drawn, drawn + len(logits)))
            differ += _differing(policy, np.array(logits), u32)
            drawn += len(logits)
    return _of_draws("draws, all tokens", drawn, differ, f"{len(subject.policies)} policies")


def _million_draws(subject: Subject, work: Path) -> Row:
    sampling = subject.sampling
    best = [np.sort(logits, axis=-1)[:, : -CANDIDATES - 1 : -1] for logits in saved(work, "student", subject)]
    best = np.ascontiguousarray(np.concatenate(best))
    np.random.default_rng(0).permuted(best, axis=-1, out=best)
    policy = DecodingPolicy(sampling.temperature, sampling.top_k or 20, sampling.top_p, sampling.order)
    key, differ = sample_key(subject.source.recipe.seed, "parity", "k numbers", 0), 0
    for start in range(0, MILLION, AT_ONCE):
        place = np.arange(start, min(start + AT_ONCE, MILLION))
        differ += _differing(policy, best[place % len(best)], uniform_u32(key, place))
    return _of_draws(f"draws, {best.shape[-1]} tokens", MILLION, differ, f"{policy.name()}, {MILLION:,} uniforms")


def _differing(policy: Any, logits: np.ndarray, u32: np.ndarray) -> int:
    import mlx.core as mx
    import torch

    from mlx_ssd.decoding.policy_mlx import make_sampler
    from mlx_ssd.torch_ref.policy import draw

    heartbeat.alive()
    found = np.array(make_sampler(policy)(mx.array(logits), mx.array(u32)))
    return int((found != draw(torch.from_numpy(logits), policy, u32).numpy()).sum())


def _of_draws(quantity: str, drawn: int, differ: int, note: str) -> Row:
    figures = {"differ": differ, "top1": 1 - differ / drawn}
    return Row(quantity, figures, "differ", 0, "the draw is exact integer arithmetic (docs/decoding.md)", note)
