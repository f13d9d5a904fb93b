"""How near a draw stood to another outcome: explains where two runs on different kernels part."""

import math

import numpy as np

from mlx_ssd.decoding.draw import Policy, needs_ranking
from mlx_ssd.decoding.policy import ranked_ids


def boundary_distance(policy: Policy, logits: np.ndarray, u32: int) -> float:
    """The smallest change, in probability, that could turn this draw into another token; inf if none could.

    logits [vocabulary]. Kernels move logits by rounding; where the same uniform then gives another token, the
    distance at that place is of the size of that rounding. It is the least of
    - the uniform's distance from the nearest boundary between two tokens in the cumulative distribution,
    - the difference between the drawn token's probability and its neighbours' in rank, the first excluded
      token too: near-equal tokens change places, also across the top-k border,
    - the distance of top-p from the cumulative mass at any rank it is compared with, since a token that
      enters or leaves moves every boundary. In a tail of tiny masses this is small whatever was drawn, so
      with top-k 0 a small distance excuses more than it explains.
    """
    logits = np.asarray(logits, dtype=np.float64)
    uniform = u32 / 2**32
    probabilities = policy.reference_probabilities(logits)
    if not needs_ranking(policy, logits.size):
        return _nearest(np.cumsum(probabilities)[:-1], uniform)
    cumulative = np.cumsum(probabilities[policy.support(logits)])
    distances = [_nearest(cumulative[:-1], uniform)]

    ranked = ranked_ids(logits)
    temperature = math.prod(1.0 if stage.greedy else stage.temperature for stage in policy.stages)
    mass = probabilities[ranked[0]] * np.exp((logits[ranked] - logits[ranked[0]]) / temperature)
    drawn = int((cumulative[:-1] <= uniform).sum())
    distances.append(_nearest(np.delete(mass[max(drawn - 1, 0) : drawn + 2], min(drawn, 1)), mass[drawn]))

    for stage in policy.stages:
        if not stage.greedy and stage.top_p < 1:
            _, mass_above = stage.mass_above(logits)
            distances.append(_nearest(mass_above[1:], stage.top_p))
        logits = stage.decoded_logits(logits)
    return min(distances)


def _nearest(values: np.ndarray, point: float) -> float:
    return float(np.abs(values - point).min(initial=math.inf))
