"""Every column at one position in float64 numpy, straight from the paper's formulas: each a sum over the vocabulary."""

import numpy as np

from mlx_ssd.analysis.store import RANKS, TEMPERATURES, TOP
from mlx_ssd.decoding.draw import OCTAVES
from mlx_ssd.decoding.policy import DecodingPolicy, ranked_ids


def softmax(logits):
    mass = np.exp(logits - logits.max())
    return mass / mass.sum()


def xlogy(x, y):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x > 0, x * np.log(y), 0)


def entropy(p):
    return -xlogy(p, p).sum()


def renyi(p, order):
    """H_a(p) = log(sum_v p(v)^a) / (1 - a)."""
    return np.log((p[p > 0] ** order).sum()) / (1 - order)


def renormalised(p, kept):
    part = np.where(kept, p, 0)
    return part / part.sum()


def tempered(p, temperature, kept):
    """Temper_T^S[p]."""
    return renormalised(p ** (1 / temperature), kept)


def support(policy, logits):
    """Of the specification, without tokens so unlikely that the sampler's integers never draw them."""
    ids = policy.support(logits)
    return ids[(logits[ids] - logits.max()) / policy.temperature >= (1 - OCTAVES) * np.log(2)]


def columns(base, student, token, sampling, evaluation):
    base, student = (np.asarray(logits, dtype=np.float64) for logits in (base, student))
    kept = np.zeros(base.shape, bool)
    kept[support(sampling, base)] = True
    temperature = sampling.temperature
    q = renormalised(sampling.reference_probabilities(base), kept)
    found = {"token": token, "support": kept.sum(), "target_entropy": temperature * entropy(q)}
    for name, logits in (("base", base), ("student", student)):
        of_side = side(logits, token, kept, q, temperature, evaluation)
        found |= {f"{name}.{key}": value for key, value in of_side.items()}
    found |= gains(base, student, kept, q, temperature, evaluation.temperature)
    return found


def side(logits, token, kept, q, temperature, evaluation):
    p = softmax(logits)
    mass = p[kept].sum()
    inside, outside = renormalised(p, kept), renormalised(p, ~kept) if (1 - kept).any() and p[~kept].sum() else 0 * p
    ranked = np.argsort(-logits, kind="stable")
    found = {
        "kept_mass": mass,
        "entropy": entropy(p),
        "gate": entropy(np.array([mass, p[~kept].sum()])),
        "head": mass * entropy(inside),
        "tail": p[~kept].sum() * entropy(outside),
        "loss": -xlogy(q, p).sum(),
        "compression": -np.log(mass),
        "conditional": -xlogy(q, inside).sum(),
        "reshaping": 0.0 if temperature == 1 else (1 - temperature) * renyi(inside, 1 / temperature),
        "anchor": temperature * (xlogy(q, q) - xlogy(q, tempered(inside, temperature, kept))).sum(),
        "rank": list(ranked).index(token),
        "probability": p[token],
        "surviving": len(support(evaluation, logits)),
        "top_ids": ranked[:TOP],
        "top_probabilities": p[ranked[:TOP]],
        "mass_by_rank": np.minimum(np.cumsum(np.pad(p[ranked], (0, RANKS)))[:RANKS], 1),
    }
    grid = [DecodingPolicy(t, evaluation.top_k, evaluation.top_p, evaluation.order) for t in TEMPERATURES]
    found["surviving_by_temperature"] = [len(support(policy, logits)) for policy in grid]
    found["entropy_by_temperature"] = [entropy(policy.reference_probabilities(logits)) for policy in grid]
    return found


def gains(base, student, kept, q, temperature, tau):
    """Of the base's likeliest token."""
    first, whole = ranked_ids(base)[0], np.ones(base.shape, bool)
    p0 = softmax(base)
    teacher = tempered(p0, tau, whole)

    def power(g):
        return renormalised(p0**g, kept)[first]

    return {
        "gain.compression": -np.log(teacher[kept].sum()),
        "gain.reshaping": np.log(power(1 / (temperature * tau)) / power(1 / tau)),
        "gain.ideal": np.log(tempered(q, tau, kept)[first] / teacher[first]),
        "gain.student": np.log(tempered(softmax(student), tau, whole)[first] / teacher[first]),
    }
