"""The decoding distribution, written plainly in float64 numpy: THE specification.

`DecodingPolicy` is one (temperature, top-k, top-p) in one of three orders; `StagedPolicy` is what an
ideally fitted student would do, with no training. The sampler (`policy_mlx`) is tested against this module.
"""

from dataclasses import dataclass
from itertools import groupby

import numpy as np

from mlx_ssd.errors import BadInput, WorkFailed

ORDERS = ("temperature_first", "mlx_lm", "llama_cpp")

# Below this temperature decoding is greedy, as in vLLM.
GREEDY_BELOW = 1e-5

# A mass this near to top-p has reached it: of ten equal tokens top-p 0.8 keeps eight, however floats add up.
EDGE = 1e-9


@dataclass(frozen=True)
class DecodingPolicy:
    """How logits become a distribution over the next token.

    temperature: 0 (below 1e-5) is greedy. top_k: 0 is none. top_p: 1.0 is none.
    order `temperature_first` is the paper's (also vLLM's and Transformers'): T, top-k, top-p over the
    tempered survivors. `mlx_lm`: top-p over the whole untempered distribution, top-k, T. `llama_cpp`: top-k,
    top-p over the untempered survivors, T. Raises BadInput for a setting that means nothing.
    """

    temperature: float
    top_k: int = 0
    top_p: float = 1.0
    order: str = "temperature_first"

    def __post_init__(self) -> None:
        if not _is_number(self.temperature) or not 0 <= self.temperature <= 100:
            raise BadInput(f"temperature is {self.temperature!r}; give a number from 0 (greedy) to 100")
        if not isinstance(self.top_k, int) or isinstance(self.top_k, bool) or self.top_k < 0:
            raise BadInput(f"top_k is {self.top_k!r}; give a whole number, 0 for no limit")
        if not _is_number(self.top_p) or not 0 < self.top_p <= 1:
            raise BadInput(f"top_p is {self.top_p!r}; give a number above 0 and up to 1 (1 for no limit)")
        if self.order not in ORDERS:
            raise BadInput(f"order is {self.order!r}; give one of {', '.join(ORDERS)}")

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def stages(self) -> tuple["DecodingPolicy", ...]:
        """The policies applied one after the other; a StagedPolicy has several."""
        return (self,)

    def name(self) -> str:
        """A name for file names: `t0.9-k20-p0.8`, plus the order unless it is the default; or `greedy`."""
        if self.greedy:
            return "greedy"
        name = f"t{_short(self.temperature)}-k{self.top_k}-p{_short(self.top_p)}"
        return name if self.order == ORDERS[0] else f"{name}-{self.order}"

    def reference_probabilities(self, logits: np.ndarray) -> np.ndarray:
        """logits [vocabulary], natural-log units, -inf allowed -> float64 probabilities [vocabulary], sum 1.

        Raises WorkFailed when a logit is nan or +inf, or when none is finite.
        """
        return _softmax(self.decoded_logits(logits))

    def decoded_logits(self, logits: np.ndarray) -> np.ndarray:
        """log of the decoding distribution, up to a constant: logits / T on the support, -inf elsewhere."""
        logits = _checked(logits)
        decoded = np.full(logits.shape, -np.inf)
        kept = self.support(logits)
        decoded[kept] = logits[kept] / (1.0 if self.greedy else self.temperature)
        return decoded

    def support(self, logits: np.ndarray) -> np.ndarray:
        """Ids of the tokens that may be drawn, the most likely first; k of them where only top-k cuts."""
        logits = _checked(logits)
        if self.greedy:
            return ranked_ids(logits)[:1]
        ranked, mass_above = self.mass_above(logits)
        if self.top_p < 1:
            reached = mass_above >= self.top_p - EDGE
            reached[0] = False  # the first always stays
            ranked = ranked[~reached]
        return ranked[: self.top_k or None]

    def mass_above(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(ids, mass): the ranking that top-p cuts, and before each id the mass of all ranks above it, in the
        order's own measure. A rank stays while that mass is below top-p."""
        ranked = ranked_ids(logits)
        if self.order != "mlx_lm":
            ranked = ranked[: self.top_k or None]
        mass = _softmax(logits[ranked] / (self.temperature if self.order == "temperature_first" else 1.0))
        return ranked, np.concatenate([[0.0], np.cumsum(mass)[:-1]])


@dataclass(frozen=True, init=False)
class StagedPolicy:
    """Policies one after the other: what training on the samples of each in turn would ideally give, without training.

    Two-stage decoding has two. The ideal student is p0^(1/T_train) on the train policy's support (Temper_T^S[p0] of the
    paper's appendix B.1); the evaluation policy decodes it. With temperatures first that is p0^(1/(T_train T_eval)) on
    the support, cut by the evaluation's top-k and top-p (Lemma B.1: temperatures multiply). A student that is distilled
    in its turn adds a stage.
    """

    stages: tuple[DecodingPolicy, ...]

    def __init__(self, *stages: DecodingPolicy) -> None:
        if len(stages) < 2:
            raise ValueError(f"{len(stages)} stages; a single one is a DecodingPolicy")
        object.__setattr__(self, "stages", stages)

    @property
    def kind(self) -> str:
        """As tables name it: two-stage, 3-stage, …"""
        return "two-stage" if len(self.stages) == 2 else f"{len(self.stages)}-stage"

    def name(self) -> str:
        """For file names, short however many stages there are: equal ones in a row are counted (`…-x4-then-…`)."""
        runs = [(name, len([*run])) for name, run in groupby(stage.name() for stage in self.stages)]
        return f"{self.kind}-" + "-then-".join(name + (f"-x{count}" if count > 1 else "") for name, count in runs)

    def support(self, logits: np.ndarray) -> np.ndarray:
        """As DecodingPolicy.support."""
        return self.stages[-1].support(self._before_the_last(logits))

    def reference_probabilities(self, logits: np.ndarray) -> np.ndarray:
        """As DecodingPolicy.reference_probabilities."""
        return self.stages[-1].reference_probabilities(self._before_the_last(logits))

    def _before_the_last(self, logits: np.ndarray) -> np.ndarray:
        for stage in self.stages[:-1]:
            logits = stage.decoded_logits(logits)
        return logits


def ranked_ids(logits: np.ndarray) -> np.ndarray:
    """Ids by (logit descending, id ascending), without those at -inf."""
    order = np.argsort(-logits, kind="stable")
    return order[np.isfinite(logits[order])]


def _checked(logits: np.ndarray) -> np.ndarray:
    logits = np.asarray(logits, dtype=np.float64)
    if logits.ndim != 1:
        raise ValueError(f"logits have shape {logits.shape}; the specification takes one row [vocabulary]")
    if np.isnan(logits).any() or np.isposinf(logits).any() or not np.isfinite(logits).any():
        raise WorkFailed("the logits hold nan or +inf, or are all -inf; check the model")
    return logits


def _softmax(logits: np.ndarray) -> np.ndarray:
    mass = np.exp(logits - logits.max())
    return mass / mass.sum()


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _short(value: float) -> str:
    return repr(float(value)).removesuffix(".0")
