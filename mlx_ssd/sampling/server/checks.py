"""What is asked of a server before its first sample: does it do as it is told, with this model, in this decoding?

Three rounds of short questions on the run's own prompts. Settings: greedy in three ways must be one answer, seeds must
count, max_tokens must bind. Model: the log-probability of each token that the server drew at temperature 1 beside the
one that the recipe's model gives it. Decoding: of tokens drawn as the recipe asks, each must be in the support; their
log-likelihood must be what that distribution leads to expect; and no rival (another order, a setting ignored) may be
much the likelier to have drawn them. The last are e-values, products of likelihood ratios whose mean is 1 where the
server draws as it should: their average exceeds 10**4 once in 10**4 starts at the most (Ville's inequality), and the
largest is named, which is near what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mlx_ssd import heartbeat
from mlx_ssd.decoding.policy import ORDERS as POLICY_ORDERS
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.errors import BadInput
from mlx_ssd.sampling.server.kinds import Answer, Asked, Question

GREEDY_PROMPTS, GREEDY_TOKENS = 3, 24
MODEL_PROMPTS, MODEL_TOKENS = 4, 32
DECODING_PROMPTS, DECODING_TOKENS = 24, 64
SHORT = 3  # tokens asked for where it is asked whether max_tokens binds
TRIES = 2  # of what a server may get right at the second: a GPU may round otherwise in another batch
HOT = 2.0  # a temperature at which no two answers are alike by chance
MARGIN = 0.5  # nats by which a token may lie below the support: another machine's logits are a little different
MOST_Z = 5.0  # standard errors; by chance once in 1.7 million starts

MOST_E = 4.0  # decimal logarithm of an e-value
MIXED = 0.01  # of the tempered, untruncated distribution in both sides of a ratio: for tokens on a support's border
LOCKED = 15.0  # nats of the likeliest token before the next, from which on a position says nothing

ROOT, GREEDY = DecodingPolicy(1.0), DecodingPolicy(0.0)

# Asks all questions, and gives their answers in order.
Ask = Callable[[Sequence[Question]], list[Answer]]


@dataclass(frozen=True)
class Drawn:
    """An answer as tokens: its prompt's ids, its own, and the log-probabilities that the server gives them."""

    prompt_ids: list[int]
    ids: list[int]
    logprobs: list[float] | None


def check_settings(ask: Ask, prompts: Sequence[Asked], policy: DecodingPolicy, seeds: bool) -> None:
    """Raises BadInput naming the settings that the server ignores. seeds: whether it is given any."""
    ignored = _ignored(ask, prompts, policy, seeds)
    for _ in range(TRIES - 1):
        if ignored:
            again = _ignored(ask, prompts, policy, seeds)
            ignored = {name: words for name, words in ignored.items() if name in again}
    if ignored:
        raise BadInput(f"the server ignores {'; '.join(f'{name} ({words})' for name, words in ignored.items())}")


def _ignored(ask: Ask, prompts: Sequence[Asked], policy: DecodingPolicy, seeds: bool) -> dict[str, str]:
    """What it seems to ignore, and by which sign. All is asked at once."""
    ways = {"temperature": (GREEDY, "temperature 0")}
    if policy.top_k:
        ways["top_k"] = DecodingPolicy(HOT, top_k=1), f"top_k 1 at temperature {HOT:g}"
    if policy.top_p < 1:
        ways["top_p"] = DecodingPolicy(HOT, top_p=0.001), f"top_p 0.001 at temperature {HOT:g}"
    chosen = prompts[:GREEDY_PROMPTS]

    def questions(way: DecodingPolicy, seed: int) -> list[Question]:
        return [Question(prompt, way, GREEDY_TOKENS, seed if seeds else None) for prompt in chosen]

    hot = Question(prompts[0], DecodingPolicy(HOT), GREEDY_TOKENS)
    asked = {
        "max_tokens": [Question(prompts[0], ROOT, SHORT, 1 if seeds else None)],
        "greedy": questions(GREEDY, 3),
        **{name: questions(way, 4) for name, (way, _) in ways.items()},
        "hot": [replace(hot, seed=seed) for seed in (1, 1, 2)] if seeds else [hot, hot],
    }
    answers = iter(ask([question for group in asked.values() for question in group]))
    found = {name: [next(answers) for _ in group] for name, group in asked.items()}
    ignored = {}
    if (tokens := _tokens(found["max_tokens"][0])) > SHORT:
        ignored["max_tokens"] = f"asked for {SHORT}, it gave {tokens}"
    for name, (_, how) in ways.items():
        if not all(map(_same, found["greedy"], found[name])) and "temperature" not in ignored:
            ignored[name] = f"with {how} it does not give its likeliest tokens"
    if seeds and not _same(*found["hot"][:2]):
        ignored["seed"] = "twice the same gives two answers; set sample.server.seeds to false"
    if _same(found["hot"][0], found["hot"][-1]):
        what = "two seeds give one answer" if seeds else "asked twice, it answers the same"
        ignored["seed or temperature" if seeds else "temperature"] = f"{what} at temperature {HOT:g}"
    return ignored


def _same(a: Answer, b: Answer) -> bool:
    return (a.ids, a.text) == (b.ids, b.text)


def _tokens(answer: Answer) -> int:
    return len(answer.ids) if answer.ids is not None else answer.completion_tokens or 0


class Own:
    """The recipe's model, for as long as it is asked."""

    def __init__(self, model: Any):
        self._model = model

    def logits(self, drawn: Drawn) -> np.ndarray:
        """float32 [tokens, vocabulary]: before each token of the answer."""
        import mlx.core as mx
        from mlx_lm.models.cache import make_prompt_cache

        cache = make_prompt_cache(self._model)
        *before, last = drawn.prompt_ids
        if before:
            self._model(mx.array([before]), cache=cache)
            mx.eval([layer.state for layer in cache])  # not the logits of a long prompt, which nobody needs
        given = [last, *drawn.ids[:-1]]
        found = np.array(self._model(mx.array([given]), cache=cache)[0].astype(mx.float32))
        heartbeat.alive()
        return found


def check_model(own: Own, answers: Sequence[Drawn], tolerance: float) -> dict[str, float]:
    """answers: drawn at temperature 1, untruncated. Nats by which the server's log-probabilities differ from the
    model's, on average and at the most. Raises BadInput where the average is above the tolerance."""
    theirs, ours = [], []
    for drawn in answers:
        logits = own.logits(drawn).astype(np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        logprobs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        ours += logprobs[np.arange(len(drawn.ids)), drawn.ids].tolist()
        theirs += drawn.logprobs or []
    apart = np.abs(np.array(theirs) - np.array(ours))
    at = int(apart.argmax())
    if not apart.mean() <= tolerance:
        raise BadInput(
            f"the server's model is not the recipe's: its log-probabilities differ by {apart.mean():.3g} nats on "
            f"average over {len(apart)} tokens, at most by {apart[at]:.3g} ({theirs[at]:.4g} there, {ours[at]:.4g} "
            f"here), and sample.server.tolerance is {tolerance:g}; serve model.path itself, in the same precision"
        )
    return {"tokens": len(apart), "mean_difference": float(apart.mean()), "largest_difference": float(apart[at])}


def check_decoding(own: Own, answers: Sequence[Drawn], policy: DecodingPolicy) -> dict[str, Any]:
    """answers: drawn by the policy. Returns z, the standard errors between the log-likelihood of the drawn tokens and
    what the policy leads to expect, and the largest decimal logarithm of a rival's e-value. Raises BadInput for a token
    outside the support, too large a z, or a rival too likely."""
    excess = variance = 0.0
    against = _rivals(policy)
    evidence = dict.fromkeys(against, 0.0)
    tokens = 0
    for drawn in answers:
        for row, token in zip(own.logits(drawn), drawn.ids, strict=True):
            tokens += 1
            ranked = np.sort(row.astype(np.float64))[::-1]
            place = int(np.searchsorted(-ranked, -float(row[token])))
            if place == 0 and ranked[0] - ranked[1] > LOCKED:
                continue
            logs = _logs(policy, None, ranked)
            if ranked[len(logs) - 1] - ranked[place] > MARGIN:
                raise _otherwise(
                    policy,
                    f"token {token} cannot be drawn where it drew it, its logit is "
                    f"{ranked[len(logs) - 1] - ranked[place]:.3g} below the last of the {len(logs)} that can",
                )
            whole = _likelihood(_logs(replace(policy, top_k=0, top_p=1.0), None, ranked), place)
            its = (1 - MIXED) * _likelihood(logs, place) + MIXED * whole
            for name, rival in against.items():
                likelihood = (1 - MIXED) * _likelihood(_logs(*rival, ranked), place) + MIXED * whole
                evidence[name] += float(np.log10(likelihood / its)) if its else 0.0
            if place < len(logs) > 1:
                mean = float(np.exp(logs) @ logs)
                excess += float(logs[place]) - mean
                variance += float(np.exp(logs) @ (logs - mean) ** 2)
    likeliest = max(evidence, key=evidence.__getitem__, default=None)
    if likeliest and evidence[likeliest] - np.log10(len(evidence)) > MOST_E:
        raise _otherwise(
            policy, f"its {tokens} tokens are 10^{evidence[likeliest]:.0f} times likelier to come from one {likeliest}"
        )
    z = excess / variance**0.5 if variance else 0.0
    if not abs(z) <= MOST_Z:
        how = "likelier" if z > 0 else "less likely"
        raise _otherwise(policy, f"its {tokens} tokens are {abs(z):.1f} standard errors {how} than they should be")
    found = {"decoding_tokens": tokens, "decoding_z": round(z, 2)}
    return found | ({"rival_log10_e": round(evidence[likeliest], 2)} if likeliest else {})


def _otherwise(policy: DecodingPolicy, what: str) -> BadInput:
    return BadInput(
        f"the server does not draw by {policy.name()} in order {policy.order}: {what}; look for a default of its own, "
        "a setting that it ignores, or another order"
    )


Rival = tuple[DecodingPolicy, int | None]  # a policy, and of its support the first so many


def _rivals(policy: DecodingPolicy) -> dict[str, Rival]:
    """What a server may draw by instead, by name."""
    if policy.greedy:
        return {}
    rivals: dict[str, Rival] = {f"in order {order}": (replace(policy, order=order), None) for order in POLICY_ORDERS}
    rivals["that takes top-p of all tokens, not of the top k"] = (
        replace(policy, order="temperature_first", top_k=0),
        policy.top_k or None,
    )
    rivals["that ignores top_k"] = (replace(policy, top_k=0), None)
    rivals["that ignores top_p"] = (replace(policy, top_p=1.0), None)
    rivals["that ignores top_k and top_p"] = (replace(policy, top_k=0, top_p=1.0), None)
    for temperature in (0.7, 1.0):
        rivals[f"at temperature {temperature:g}"] = (replace(policy, temperature=temperature), None)
    return {name: rival for name, rival in rivals.items() if rival != (policy, None)}


def _logs(policy: DecodingPolicy, first: int | None, ranked: np.ndarray) -> np.ndarray:
    """Log-probabilities of the tokens in the support, which is the beginning of the ranking. ranked: logits, largest
    first."""
    support = ranked[: len(policy.support(ranked))][:first] / (policy.temperature or 1.0)
    support = support - support[0]
    return support - np.log(np.exp(support).sum())


def _likelihood(logs: np.ndarray, place: int) -> float:
    return float(np.exp(logs[place])) if place < len(logs) else 0.0
