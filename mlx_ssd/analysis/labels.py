"""Which tokens are locks and which are forks: by a rule, for the paper gives none (numpy; on a part's columns).

A lock is where one token is nearly certain, a fork where several are plausible; both are said of the frozen base at
temperature 1, so that training cannot change them. Any such rule is a choice. So the summary says what other rules,
`ALTERNATIVES`, would have given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mlx_ssd.analysis.store import LABELS, SIDES

Columns = Mapping[str, np.ndarray]
LOCK, BETWEEN, FORK = range(len(LABELS))

# What the sum over an identity leaves, in nats: 0 but for rounding. Arrays [n] from columns in float64.
IDENTITIES: dict[str, Callable[[Columns], np.ndarray]] = {
    **{
        f"{side}: {words}": (lambda columns, side=side, of=of: of(lambda name: columns[f"{side}.{name}"], columns))
        for side in SIDES
        for words, of in {
            "entropy = gate + head + tail": lambda c, _: c("entropy") - c("gate") - c("head") - c("tail"),
            "loss = compression + conditional": lambda c, _: c("loss") - c("compression") - c("conditional"),
            "loss = compression + reshaping + anchor + target entropy": lambda c, columns: (
                c("loss") - c("compression") - c("reshaping") - c("anchor") - columns["target_entropy"]
            ),
        }.items()
    },
    "gain = compression + reshaping": lambda columns: (
        columns["gain.ideal"] - columns["gain.compression"] - columns["gain.reshaping"]
    ),
}


@dataclass(frozen=True)
class Rule:
    """words: as a reader is told it; the two tests give bool [n]. What is neither lock nor fork is between."""

    words: str
    lock: Callable[[Columns], np.ndarray]
    fork: Callable[[Columns], np.ndarray]

    def labels(self, columns: Columns) -> np.ndarray:
        """int [n], indices into store.LABELS; a lock is a lock even where it would pass for a fork."""
        found = np.where(self.fork(columns), FORK, BETWEEN)
        return np.where(self.lock(columns), LOCK, found)


def by_probability(lock_top1: float, fork_second: float) -> Rule:
    def lock(columns: Columns) -> np.ndarray:
        return columns["base.top_probabilities"][:, 0] >= np.float32(lock_top1)

    def fork(columns: Columns) -> np.ndarray:
        return columns["base.top_probabilities"][:, 1] >= np.float32(fork_second)

    words = (
        f"lock: the base's likeliest token has at least {lock_top1:g}; "
        f"fork: its second likeliest has at least {fork_second:g}, and it is no lock"
    )
    return Rule(words, lock, fork)


def by_support(lock: int, fork: int) -> Rule:
    return Rule(
        f"lock: |S_s| is at most {lock}; fork: at least {fork}",
        lambda columns: columns["support"] <= lock,
        lambda columns: columns["support"] >= fork,
    )


def by_entropy(nats: float) -> Rule:
    return Rule(
        f"lock: the base's entropy is below {nats:g} nats; fork: it is not",
        lambda columns: columns["base.entropy"] < nats,
        lambda columns: columns["base.entropy"] >= nats,
    )


LOCK_TOP1, FORK_SECOND = 0.9, 0.1
RULE = by_probability(LOCK_TOP1, FORK_SECOND)
ALTERNATIVES = (
    by_probability(0.8, 0.1),
    by_probability(0.95, 0.1),
    by_probability(0.99, 0.1),
    by_probability(0.9, 0.05),
    by_probability(0.9, 0.2),
    by_support(2, 3),
    by_entropy(0.23),
)
