"""The way through the rounds, for the report: how each did on the validation problems, and which was kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlx_ssd.rounds import Found, decisions
from mlx_ssd.sections import Rounds

KINDS = {"pass_gap": "pass@n - pass@1", "distinct": "different answers", "fork_entropy": "entropy at forks"}


def round_facts(ways: Mapping[str, tuple[Rounds, Sequence[Found]]]) -> list[dict[str, Any]]:
    """report["rounds"], a round of an arm each; round 0 is the base. ways: by arm, what its validations found."""
    facts = []
    for arm, (rounds, found) in ways.items():
        made = decisions(rounds, found)
        for number, validation in enumerate(found):
            entry = {
                "arm": arm,
                "round": number,
                "suite": validation["suite"],
                "temperature": validation["decoding"]["temperature"],
                "pass_at": validation["pass_at"],
                "diversity": validation["diversity"],
            }
            if not number and len(found) > 1:
                entry["diversity"] = entry["diversity"] | found[1]["diversity_of_base"]
            if number:
                decision, differences = made[number - 1], validation["differences"]
                entry |= {
                    "difference_to_base": differences["0"],
                    "difference_to_best_before": differences[str(decision.rival)],
                    "below_floors": list(decision.below_floors),
                    "kept": made[-1].kept == number,
                }
                if not decision.go_on:
                    entry["ended"] = decision.because
            facts.append(entry)
    return facts


def said(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each arm: which round was kept, and why it ended where it did."""
    sentences = []
    for arm in dict.fromkeys(entry["arm"] for entry in facts):
        of_arm = [entry for entry in facts if entry["arm"] == arm]
        kept = next(entry for entry in of_arm if entry.get("kept"))
        last = of_arm[-1]
        sentence = f"Of {last['round']} rounds of {arm}, round {kept['round']} was kept, at T {kept['temperature']:g}"
        if below := sorted({KINDS[name] for entry in of_arm for name in entry.get("below_floors", ())}):
            sentence += f"; below the floor of diversity in some round: {', '.join(below)}"
        if kept.get("below_floors"):  # then all of them are (rounds.decisions)
            sentence += ", in the kept one too, since no round is above"
        sentences.append(f"{sentence}. The end: {last['ended']}.")
    return sentences
