"""What an analysis found, in sentences: the figures with their intervals, and what cannot be told from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FEW_PROBLEMS = 20  # a percentile bootstrap over fewer is too narrow to judge by
ROUNDING = 1e-7  # what float32 may leave of a mass that is whole


def finding(summary: Mapping[str, Any]) -> list[str]:
    """Of analysis.json: tail mass at locks, the head's entropy at forks, and what hangs on the rule of the labels."""
    main, others = summary["sensitivity"][0], summary["sensitivity"][1:]
    if summary["texts"]["problems"] < FEW_PROBLEMS:
        main = {}
    said = [_locks(summary["labels"]["lock"], main), _forks(summary["labels"]["fork"], main)]
    said.append(_sensitivity(summary["rule"]["words"], others, _has_tail(summary["labels"]["lock"])))
    texts = summary["texts"]
    said.append(
        f"Measured on {texts['tokens']:,} tokens of {texts['texts']:,} texts, {texts['source']}; intervals are 95 % "
        f"over {texts['problems']:,} problems."
    )
    return said


def _locks(lock: Mapping[str, Any], rule: Mapping[str, Any]) -> str:
    if not lock["tokens"]:
        return "There are no locks in these texts."
    before, after = (lock[side]["tail_mass"] for side in ("base", "student"))
    where = f"At locks ({lock['share']:.0%} of tokens)"
    if not _has_tail(lock):
        nothing = "has no mass outside S_s, as where sampling cuts nothing off"
        return f"{where} the base {nothing}: there is no tail to remove."
    removed = _negated(rule.get("lock_tail_mass_relative"))
    figures = f"the mass outside S_s went from {_mass(before)} to {_mass(after)}"
    if removed is None:
        return f"{where} {figures}; in so few problems it cannot be told from chance."
    if removed["low"] <= 0 <= removed["high"]:
        return (
            f"{where} it cannot be told whether training removed tail mass: {figures}, a change of "
            f"{_percent(_negated(removed))}."
        )
    if removed["mean"] > 0:
        return f"{where} training removed {_percent(removed)} of the tail mass: {figures}."
    return f"{where} training added tail mass: {figures}, {_percent(_negated(removed))} more."


def _has_tail(lock: Mapping[str, Any]) -> bool:
    """Without one no share of it can be removed, over however many problems."""
    return bool(lock["tokens"]) and lock["base"]["tail_mass"] >= ROUNDING


def _forks(fork: Mapping[str, Any], rule: Mapping[str, Any]) -> str:
    if not fork["tokens"]:
        return "There are no forks in these texts."
    before, after = (fork[side]["head"] for side in ("base", "student"))
    where, change = f"At forks ({fork['share']:.0%} of tokens)", rule.get("fork_head")
    figures = f"from {before:.3f} to {after:.3f} nats"
    if change is None:
        return f"{where} the entropy of the head went {figures}; in so few problems it cannot be told from chance."
    interval = f"{change['mean']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]"
    if change["low"] <= 0 <= change["high"]:
        return f"{where} it cannot be told whether the entropy of the head changed: {figures}, {interval}."
    way = "grew" if change["mean"] > 0 else "fell"
    kept = "choice was kept" if change["mean"] > 0 else "choice was lost"
    return f"{where} the entropy of the head {way} {figures}, {interval}: {kept} among the tokens of S_s."


def _sensitivity(words: str, others: list[Mapping[str, Any]], has_tail: bool) -> str:
    """How far the two figures hang on the rule."""
    said = f"Locks and forks are told by a rule ({words}); the paper gives none."
    removed = [rule["lock_tail_mass_relative"] for rule in others if has_tail and "lock_tail_mass_relative" in rule]
    changed = [rule["fork_head"] for rule in others if "fork_head" in rule]
    parts = []
    if removed:
        low, high = min(r["mean"] for r in removed), max(r["mean"] for r in removed)
        parts.append(f"the tail mass at locks changes by {low:+.0%} to {high:+.0%}")
    if changed:
        low, high = min(c["mean"] for c in changed), max(c["mean"] for c in changed)
        verb = "" if parts else "changes "
        parts.append(f"the head's entropy at forks {verb}by {low:+.3f} to {high:+.3f} nats")
    return f"{said} By {len(others)} other rules {' and '.join(parts)}." if parts else said


def _negated(interval: Mapping[str, float] | None) -> dict[str, float] | None:
    if interval is None:
        return None
    return {"mean": -interval["mean"], "low": -interval["high"], "high": -interval["low"]}


def _percent(interval: Mapping[str, float]) -> str:
    return f"{interval['mean']:.1%} [{interval['low']:.1%}, {interval['high']:.1%}]"


def _mass(value: float) -> str:
    return f"{100 * value:.3g} %"
