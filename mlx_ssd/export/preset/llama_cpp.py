"""What llama.cpp can express of staged decoding.

`--samplers` names a chain, in which a sampler may stand more than once; but there is one --temp, one --top-k and one
--top-p for all of them (common/sampling.cpp: common_sampler_init, common_sampler_types_from_names). Each `temperature`
divides the logits once more, and top_p cuts by the mass of what is left as it is tempered by then. So

    top_k ; temperature, a times ; top_p ; temperature, b times ; top_p

with --temp t is two-stage decoding of T_train = t^a and T_eval = t^b, where both stages have one top-k and one top-p; a
further stage is a further pair at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import exp, log

from mlx_ssd.decoding.policy import DecodingPolicy

MOST = 8  # times that a temperature stands in a row
MOST_STAGES = 4  # all combinations of counts are tried
CLOSE = 0.01  # of a temperature: the shortest chain within this is taken
FAR = 0.02  # further off is called no expression of it


@dataclass(frozen=True)
class Chain:
    """counts: how often the temperature stands before each stage's top-p. cuts: whether a stage has one."""

    temperature: float
    counts: tuple[int, ...]
    cuts: tuple[bool, ...]
    top_k: int
    top_p: float

    @property
    def samplers(self) -> str:
        names = ["top_k"] * bool(self.top_k)
        for count, cut in zip(self.counts, self.cuts, strict=True):
            names += ["temperature"] * count + ["top_p"] * cut
        return ";".join(names)

    @property
    def arguments(self) -> str:
        k, p = self.top_k, self.top_p
        return f'--samplers "{self.samplers}" --temp {self.temperature:g} --top-k {k} --top-p {p:g}'

    @property
    def stages(self) -> list[DecodingPolicy]:
        """What the chain does, as policies."""
        ks = (self.top_k, *(0 for _ in self.counts[1:]))
        ps = (self.top_p if cut else 1.0 for cut in self.cuts)
        return [DecodingPolicy(self.temperature**n, k, p) for n, k, p in zip(self.counts, ks, ps, strict=True)]


def chain_of(stages: Sequence[DecodingPolicy]) -> Chain | str:
    """The chain that comes closest; or, in a sentence, why there is none."""
    if any(stage.greedy for stage in stages):
        return "a stage is greedy: --temp 0 says it all."
    if len(stages) > MOST_STAGES:
        return f"there are {len(stages)} stages, and no chain was looked for with more than {MOST_STAGES}."
    first, *later = stages
    # Top-k does nothing more once it has cut; one that comes first after a whole vocabulary may stand at the start.
    ks = [stage.top_k for stage in later if stage.top_k and stage.top_k != first.top_k]
    if ks and (first.top_p < 1 or first.top_k or len(later) > 1):
        named = " and ".join(dict.fromkeys(str(k) for k in (first.top_k, *ks)))
        return f"the stages have top-k {named}, and there is one --top-k."
    ps = dict.fromkeys(stage.top_p for stage in stages if stage.top_p < 1)
    if len(ps) > 1:
        return f"the stages have top-p {' and '.join(f'{p:g}' for p in ps)}, and there is one --top-p."
    wanted = [stage.temperature for stage in stages]
    coolest, hottest = min(wanted), max(wanted)
    if coolest < 1 < hottest:
        return f"one stage heats (T {hottest:g}) and the other cools (T {coolest:g}), and there is one --temp."
    found = []
    for counts in product(range(MOST + 1), repeat=len(stages)):
        if any(counts):
            logarithm = sum(n * log(t) for n, t in zip(counts, wanted, strict=True)) / sum(n * n for n in counts)
            temperature = float(f"{exp(logarithm):.4g}")
            error = max(abs(temperature**n / t - 1) for n, t in zip(counts, wanted, strict=True))
            found.append((max(error, CLOSE), sum(counts), error, counts, temperature))
    _, _, error, counts, temperature = min(found)
    if error > FAR:
        return f"no temperature in a chain of up to {MOST} comes closer than {100 * error:.0f} % to every stage's."
    cuts = tuple(stage.top_p < 1 for stage in stages)
    return Chain(temperature, counts, cuts, first.top_k or max(ks, default=0), min(ps, default=1.0))
