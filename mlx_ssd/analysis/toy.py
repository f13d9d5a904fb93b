"""The paper's state machine (appendix C.4): why one temperature cannot serve locks and forks, in 16 tokens.

A root chooses one of two paths, a fork one continuation, three locks follow; token 0 is right at each. The teacher is
decoded with one temperature and top-p. The student is its ideal self-distillation: the tempered, truncated teacher
itself, decoded in the same way. Nothing is trained, everything is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlx_ssd.decoding.draw import Policy
from mlx_ssd.decoding.policy import DecodingPolicy, StagedPolicy

LOCKS = 3
TRAIN = DecodingPolicy(0.9, 0, 0.85)
TOP_P = 0.80
TOP_PS = (0.65, 0.70, 0.75, 0.80, 0.85, 0.90)
LOWEST, HIGHEST, STEP = 0.4, 3.0, 0.0005
STATES = ("lock", "fork", "root")
DRAWN, TRIED = 0.01, 0.004  # steps of what is drawn, and where the best is looked for first


class Toy:
    """Probabilities [16] at a root, a fork and a lock. At the root tokens 0 and 1 are paths, elsewhere 0 is right."""

    @staticmethod
    def tokens(head: Sequence[float], ratio: float) -> np.ndarray:
        tail = ratio ** np.arange(12)
        return np.concatenate([head, (1 - sum(head)) * tail / tail.sum()])

    def __init__(self) -> None:
        # The tails' ratios are not in the paper; these give its entropies.
        self.root = self.tokens([0.200, 0.190, 0.329, 0.126], 0.5)
        self.fork = self.tokens([0.148, 0.280, 0.140, 0.144], 0.5)
        self.lock = self.tokens([0.750, 0.055, 0.050, 0.037], 0.75)

    def decoded(self, state: str, policy: Policy) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return policy.reference_probabilities(np.log(getattr(self, state)))

    def success(self, policy: Policy) -> float:
        """The chance to reach the end, in per cent."""
        root, fork, lock = (self.decoded(state, policy) for state in ("root", "fork", "lock"))
        return float(100 * (root[0] + root[1]) * fork[0] * lock[0] ** LOCKS)

    def curve(self, policy_at: Callable[[float], Policy], step: float = DRAWN) -> tuple[list[float], list[float]]:
        """(temperatures, chances)."""
        temperatures = [round(float(t), 6) for t in np.arange(LOWEST, HIGHEST, step)]
        return temperatures, [self.success(policy_at(t)) for t in temperatures]

    def best(self, policy_at: Callable[[float], Policy], step: float = 0.001) -> tuple[float, float]:
        """(chance, temperature) of the best of a grid: the chance jumps where a token is cut."""
        temperatures, chances = self.curve(policy_at, step)
        place = int(np.argmax(chances))
        return chances[place], temperatures[place]

    def peak(self, policy_at: Callable[[float], Policy]) -> tuple[float, float]:
        """(chance, temperature), the temperature to STEP: near the best three of a coarser grid."""
        temperatures, chances = self.curve(policy_at, TRIED)
        near = [temperatures[place] for place in np.argsort(chances)[-3:]]
        tried = [t + offset for t in near for offset in np.arange(-TRIED, TRIED + STEP / 2, STEP)]
        return max((self.success(policy_at(round(float(t), 6))), round(float(t), 6)) for t in tried)


def teacher_at(top_p: float) -> Callable[[float], Policy]:
    return lambda temperature: DecodingPolicy(temperature, 0, top_p)


def student_at(top_p: float) -> Callable[[float], Policy]:
    return lambda temperature: StagedPolicy(TRAIN, DecodingPolicy(temperature, 0, top_p))


def measured() -> dict[str, Any]:
    """toy.json: chances are fractions."""
    toy, found = Toy(), {}
    for name, at in (("teacher", teacher_at), ("student", student_at)):
        temperatures, chances = toy.curve(at(TOP_P))
        best, where = toy.peak(at(TOP_P))
        found[name] = {"T": temperatures, "success": [chance / 100 for chance in chances]}
        found[name] |= {"best_T": where, "best": best / 100}
    found["bars"] = {
        state: {"teacher": getattr(toy, state).tolist(), "student": toy.decoded(state, TRAIN).tolist()}
        for state in STATES
    }
    best = {name: at(TOP_P)(found[name]["best_T"]) for name, at in (("teacher", teacher_at), ("student", student_at))}
    found["decoded"] = {
        state: {name: toy.decoded(state, policy).tolist() for name, policy in best.items()} for state in STATES
    }
    found["gaps"] = {
        f"{top_p:.2f}": (toy.peak(student_at(top_p))[0] - toy.peak(teacher_at(top_p))[0]) / 100
        for top_p in TOP_PS
    }
    return found


def show(out: Path | None) -> None:
    """Print the numbers; with a folder, write toy.json and the figure there."""
    found = measured()
    for line in lines(found):
        print(line)
    if out is None:
        return
    from mlx_ssd.storage import write_json

    write_json(out / "toy.json", found)
    print(f"More in {out}/toy.json" + _draw(found, out))


def _draw(found: dict[str, Any], out: Path) -> str:
    from mlx_ssd.report.figures import write_figures
    from mlx_ssd.report.figures.toy import toy_figure

    write_figures([toy_figure(found)], out)
    return ", drawn in toy.svg"


def lines(found: dict[str, Any]) -> list[str]:
    said = ["The paper's state machine: the chance to come through, at the best temperature, top-p 0.80"]
    for name in ("teacher", "student"):
        said.append(f"  {name}  {100 * found[name]['best']:6.2f} %  at T {found[name]['best_T']:.3f}")
    said.append("Probabilities, the likeliest six; the student is the teacher tempered by 0.9 and cut at top-p 0.85")
    said += _bars(found["bars"])
    said.append("The same as they are decoded at the best temperature")
    said += _bars(found["decoded"])
    said.append("The student's lead in points, by the top-p that both are decoded with")
    said.append("  top-p " + " ".join(f"{float(top_p):6.2f}" for top_p in found["gaps"]))
    said.append("  lead  " + " ".join(f"{100 * gap:+6.2f}" for gap in found["gaps"].values()))
    return said


def _bars(bars: dict[str, Any]) -> list[str]:
    return [
        f"  {state:5} {name}  " + " ".join(f"{100 * p:5.1f}" for p in sorted(values, reverse=True)[:6])
        for state, of_state in bars.items()
        for name, values in of_state.items()
    ]
