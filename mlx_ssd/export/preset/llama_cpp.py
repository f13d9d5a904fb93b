"""What llama.cpp can express of two-stage decoding.

`--samplers` names a chain, in which a sampler may stand more than once; but there is one --temp, one --top-k and one
--top-p for all of them (common/sampling.cpp: common_sampler_init, common_sampler_types_from_names). Each `temperature`
divides the logits once more, and top_p cuts by the mass of what is left as it is tempered by then. So

    top_k ; temperature, a times ; top_p ; temperature, b times ; top_p

with --temp t is two-stage decoding of T_train = t^a and T_eval = t^b, where both stages have one top-k and one top-p.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log

from mlx_ssd.decoding.policy import DecodingPolicy

MOST = 8  # times that a temperature stands in the chain
CLOSE = 0.01  # of a temperature: the shortest chain within this is taken
FAR = 0.02  # further off is called no expression of it


@dataclass(frozen=True)
class Chain:
    """`before`, `after`: how often the temperature stands before and behind the first top-p."""

    temperature: float
    before: int
    after: int
    top_k: int
    top_p: float
    cut_first: bool
    cut_again: bool

    @property
    def samplers(self) -> str:
        names = ["top_k"] * bool(self.top_k) + ["temperature"] * self.before + ["top_p"] * self.cut_first
        return ";".join(names + ["temperature"] * self.after + ["top_p"] * self.cut_again)

    @property
    def arguments(self) -> str:
        k, p = self.top_k, self.top_p
        return f'--samplers "{self.samplers}" --temp {self.temperature:g} --top-k {k} --top-p {p:g}'

    @property
    def stages(self) -> tuple[DecodingPolicy, DecodingPolicy]:
        """What the chain does, as two policies."""
        first = DecodingPolicy(self.temperature**self.before, self.top_k, self.top_p if self.cut_first else 1.0)
        return first, DecodingPolicy(self.temperature**self.after, 0, self.top_p if self.cut_again else 1.0)


def chain_of(train: DecodingPolicy, evaluation: DecodingPolicy) -> Chain | str:
    """The chain that comes closest; or, in a sentence, why there is none."""
    if train.greedy or evaluation.greedy:
        return "a stage is greedy: --temp 0 says it all."
    if evaluation.top_k and evaluation.top_k != train.top_k:
        if train.top_p < 1 or train.top_k:
            return f"the stages have top-k {train.top_k} and {evaluation.top_k}, and there is one --top-k."
    if train.top_p < 1 and evaluation.top_p < 1 and train.top_p != evaluation.top_p:
        return f"the stages have top-p {train.top_p:g} and {evaluation.top_p:g}, and there is one --top-p."
    wanted = log(train.temperature), log(evaluation.temperature)
    if wanted[0] * wanted[1] < 0:
        return (
            f"one stage heats (T {max(train.temperature, evaluation.temperature):g}) and the other cools "
            f"(T {min(train.temperature, evaluation.temperature):g}), and there is one --temp."
        )
    found = []
    for before in range(MOST + 1):
        for after in range(MOST + 1):
            if before + after:
                logarithm = (before * wanted[0] + after * wanted[1]) / (before**2 + after**2)
                t = float(f"{exp(logarithm):.4g}")
                error = max(abs(t**before / train.temperature - 1), abs(t**after / evaluation.temperature - 1))
                found.append((max(error, CLOSE), before + after, error, before, after, t))
    _, _, error, before, after, t = min(found)
    if error > FAR:
        return f"no temperature in a chain of up to {MOST} comes closer than {100 * error:.0f} % to both stages'."
    top_k = train.top_k or evaluation.top_k
    top_p = min(train.top_p, evaluation.top_p)
    return Chain(t, before, after, top_k, top_p, train.top_p < 1, evaluation.top_p < 1)
