"""From the parts of an arm to analysis.json: what the base has, what the student has, label by label.

Parts are read one at a time; what stays is a sum a problem, label and metric. Means are over tokens. Their intervals
are over problems, by the ratio's linearisation: a mean over tokens is sum_p s_p / sum_p n_p over problems p, and
r + (s_p - r n_p) P / N has the mean r and, to first order, its spread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mlx_ssd.analysis import store
from mlx_ssd.analysis.finding import finding
from mlx_ssd.analysis.labels import ALTERNATIVES, FORK, FORK_SECOND, IDENTITIES, LOCK, LOCK_TOP1, RULE, Rule
from mlx_ssd.analysis.store import LABELS, SIDES, TEMPERATURES, Part, Text
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.statistics import bootstrap_mean

METRICS = ("kept_mass", "tail_mass", "entropy", "gate", "head", "tail", "loss", "surviving", "top1", "probability")
GAINS = ("compression", "reshaping", "ideal", "student")
OF_RULE = ("tail_mass", "head")  # what other rules are tried on
CURVES = ("surviving", "entropy")


def metric(columns: Mapping[str, np.ndarray], side: str, name: str) -> np.ndarray:
    """A metric of a side, float64 [n]."""
    if name == "tail_mass":
        return 1 - columns[f"{side}.kept_mass"].astype(np.float64)
    if name == "top1":
        return columns[f"{side}.top_probabilities"][:, 0].astype(np.float64)
    return columns[f"{side}.{name}"].astype(np.float64)


class _Tally:
    """Sums over the tokens of each problem and label, of one rule. counts [P, 3], sums [P, 3, values]."""

    def __init__(self, rule: Rule, problems: int, values: int):
        self.rule = rule
        self.counts = np.zeros((problems, len(LABELS)))
        self.sums = np.zeros((problems, len(LABELS), values))

    def add(self, columns: Mapping[str, np.ndarray], problems: np.ndarray, values: np.ndarray) -> None:
        """problems int [n]; values float64 [n, values]."""
        place = (problems, self.rule.labels(columns))
        np.add.at(self.counts, place, 1)
        np.add.at(self.sums, place, values)


def summarise(
    folder: Path,
    arm: str,
    texts: Sequence[Text],
    source: str,
    sha: str,
    sampling: DecodingPolicy,
    evaluation: DecodingPolicy,
    resamples: int = 10_000,
) -> dict[str, Any]:
    """analysis.json of an arm whose parts are all there."""
    names = list(dict.fromkeys(text.problem_id for text in texts))
    problem_of = _numbered(texts)
    values = [f"{side}.{name}" for side in SIDES for name in METRICS] + [f"gain.{name}" for name in GAINS]
    of_rule = [f"{side}.{name}" for side in SIDES for name in OF_RULE]
    main = _Tally(RULE, len(names), len(values))
    others = [_Tally(rule, len(names), len(of_rule)) for rule in ALTERNATIVES]
    residuals = dict.fromkeys(IDENTITIES, 0.0)
    curves: dict[str, Any] = {}
    for part in store.parts(folder, arm):
        columns, problems = part.columns, problem_of[part.columns["text"]]
        table = {
            name: columns[name].astype(np.float64) if name.startswith("gain.") else metric(columns, *name.split("."))
            for name in values
        }
        main.add(columns, problems, np.stack([table[name] for name in values], axis=1))
        for tally in others:
            tally.add(columns, problems, np.stack([table[name] for name in of_rule], axis=1))
        _check(columns, residuals)
        _add_curves(curves, part)

    tokens = main.counts.sum()
    whole = _Tally(RULE, len(names), len(values))
    whole.counts, whole.sums = main.counts.sum(axis=1, keepdims=True), main.sums.sum(axis=1, keepdims=True)
    labels = {name: _of_label(main, number, values, resamples) for number, name in enumerate(LABELS)}
    gains = {name: _gains(main, number, values) for number, name in enumerate(LABELS)}
    found = {
        "arm": arm,
        "texts": {"source": source, "sha": sha, "texts": len(texts), "problems": len(names), "tokens": int(tokens)},
        "sampling": asdict(sampling),
        "evaluation": asdict(evaluation),
        "rule": {
            "name": "probability", "words": RULE.words, "lock_top1": LOCK_TOP1, "fork_second": FORK_SECOND,
        },
        "labels": labels,
        "all": _of_label(whole, 0, values, resamples),
        "sensitivity": [_of_rule(main, values, resamples), *(_of_rule(tally, of_rule, resamples) for tally in others)],
        "mass_by_rank": {side: _listed(curves[f"{side}.mass_by_rank"] / tokens) for side in SIDES},
        "temperatures": list(TEMPERATURES),
        **{
            name: {side: _listed(curves[f"{side}.{name}_by_temperature"] / tokens) for side in SIDES}
            for name in CURVES
        },
        "gain": {name: means for name, means in gains.items() if means},
        "residuals": residuals,
    }  # fmt: skip
    if all(f"{side}.{name}_by_temperature_and_label" in curves for side in SIDES for name in CURVES):
        found |= {f"{name}_by_label": _by_label(curves, name, main.counts.sum(axis=0)) for name in CURVES}
    return found | {"finding": finding(found)}


def _numbered(texts: Sequence[Text]) -> np.ndarray:
    """The problem of every text, numbered in their order."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(text.problem_id, len(numbers)) for text in texts])


def ratio(numerators: np.ndarray, denominators: np.ndarray, resamples: int) -> dict[str, float] | None:
    """sum_p a_p / sum_p b_p of problems [P] with its interval; None where it is not finite, or fewer than two problems
    have any of it: nothing varies."""
    total = denominators.sum()
    if not total or not np.isfinite(numerators).all() or np.count_nonzero(denominators) < 2:
        return None
    estimate = numerators.sum() / total
    spread = estimate + (numerators - estimate * denominators) * len(numerators) / total
    interval = bootstrap_mean(spread, resamples)
    return {"mean": float(estimate), "low": interval.low, "high": interval.high}


def _of_label(tally: _Tally, label: int, values: list[str], resamples: int) -> dict[str, Any]:
    counts, sums = tally.counts[:, label], tally.sums[:, label]
    tokens = counts.sum()
    found: dict[str, Any] = {"tokens": int(tokens), "share": float(tokens / max(tally.counts.sum(), 1))}
    if not tokens:
        return found
    means = dict(zip(values, sums.sum(axis=0) / tokens, strict=True))
    for side in SIDES:
        of_side = {name: float(means[f"{side}.{name}"]) for name in METRICS}
        found[side] = {name: mean for name, mean in of_side.items() if np.isfinite(mean)}
    differences = {}
    for name in METRICS:
        before, after = (sums[:, values.index(f"{side}.{name}")] for side in SIDES)
        with np.errstate(invalid="ignore"):
            differences[name] = ratio(after - before, counts, resamples)
    found["difference"] = {name: interval for name, interval in differences.items() if interval}
    return found


def _of_rule(tally: _Tally, values: list[str], resamples: int) -> dict[str, Any]:
    """What the finding would be by this rule: differences, and as shares of what the base has."""
    tokens = tally.counts.sum(axis=0)
    shares = tokens / max(tokens.sum(), 1)
    found = {"rule": tally.rule.words, "lock_share": float(shares[LOCK]), "fork_share": float(shares[FORK])}
    for label, name, quantity in ((LOCK, "lock", "tail_mass"), (FORK, "fork", "head")):
        before, after = (tally.sums[:, label, values.index(f"{side}.{quantity}")] for side in SIDES)
        found[f"{name}_{quantity}"] = ratio(after - before, tally.counts[:, label], resamples)
        found[f"{name}_{quantity}_relative"] = ratio(after - before, before, resamples)
    return {name: value for name, value in found.items() if value is not None}


def _gains(tally: _Tally, label: int, values: list[str]) -> dict[str, float]:
    tokens = tally.counts[:, label].sum()
    if not tokens:
        return {}
    sums = tally.sums[:, label].sum(axis=0)
    means = {name: float(sums[values.index(f"gain.{name}")] / tokens) for name in GAINS}
    return {name: mean for name, mean in means.items() if np.isfinite(mean)}


def _check(columns: Mapping[str, np.ndarray], residuals: dict[str, float]) -> None:
    """What is infinite on both sides of an identity, or undefined, says nothing of it."""
    exact = {name: values.astype(np.float64) for name, values in columns.items() if values.ndim == 1}
    for name, residual in IDENTITIES.items():
        with np.errstate(invalid="ignore"):
            left = np.abs(residual(exact))
        residuals[name] = max(residuals[name], float(left[np.isfinite(left)].max(initial=0.0)))


def _add_curves(curves: dict[str, Any], part: Part) -> None:
    for side in SIDES:
        by_temperature = [f"{name}_by_temperature{more}" for name in CURVES for more in ("", "_and_label")]
        for name in ("mass_by_rank", *by_temperature):
            if (key := f"{side}.{name}") in part.columns:
                curves[key] = curves.get(key, 0) + part.columns[key].sum(axis=0, dtype=np.float64)


def _by_label(curves: dict[str, Any], name: str, tokens: np.ndarray) -> dict[str, Any]:
    return {
        label: {side: _listed(curves[f"{side}.{name}_by_temperature_and_label"][number] / count) for side in SIDES}
        for number, (label, count) in enumerate(zip(LABELS, tokens, strict=True))
        if count
    }


def _listed(values: np.ndarray) -> list[float]:
    return [float(value) for value in values]
