"""Whether a training problem gives away a test problem: n-gram overlap over words.

Thirteen words in a row is the measure of GPT-3 (arXiv 2005.14165, appendix C). It errs towards
dropping: stock phrases of contest statements can be that long.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_WORD = re.compile(r"[^\W_]+")  # letters and digits of any script


def normal_form(text: str) -> str:
    """`text` with every run of white space as one space: what "the same statement" means."""
    return " ".join(text.split())


def words(text: str) -> list[str]:
    """The alphanumeric words of `text`, in lower case."""
    return _WORD.findall(text.lower())


def ngrams(text: str, n: int) -> Iterator[str]:
    """Every run of `n` words of `text`; none when it is shorter."""
    found = words(text)
    return (" ".join(found[start : start + n]) for start in range(len(found) - n + 1))


@dataclass(frozen=True)
class Judged:
    """The texts that a student is judged on, indexed by their n-grams and as wholes."""

    n: int
    grams: frozenset[str]
    wholes: frozenset[str]

    def shares(self, text: str) -> bool:
        """Whether `text` has an n-gram in common with a judged text; of fewer than n words, whether it is one."""
        return self.holds(text) or any(gram in self.grams for gram in ngrams(text, self.n))

    def holds(self, text: str) -> bool:
        """Whether `text` is a judged text, word for word."""
        return " ".join(words(text)) in self.wholes


def judged(texts: Iterable[str], n: int) -> Judged:
    """Index `texts` by runs of `n` >= 1 words."""
    texts = list(texts)
    return Judged(
        n,
        grams=frozenset(gram for text in texts for gram in ngrams(text, n)),
        wholes=frozenset(" ".join(words(text)) for text in texts),
    )
