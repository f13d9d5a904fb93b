"""The syntactic filters of SSD. Nothing here knows, or could know, whether an answer is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mlx_ssd.records import Sample
from mlx_ssd.sections import Curation


def reason_to_drop(text: str, finish_reason: str, curation: Curation) -> str | None:
    """Why an answer is dropped ("empty", "stub", "unfinished"), or None.

    A stub is an answer of which, without its fence lines, at most one line that is not blank is left.
    """
    if curation.drop_empty and not text.strip():
        return "empty"
    if curation.unfinished == "drop" and finish_reason != "stop":
        return "unfinished"
    lines = [line.strip() for line in text.splitlines()]
    written = [line for line in lines if line and not line.startswith(("```", "~~~"))]
    if curation.drop_stubs and text.strip() and len(written) <= 1:
        return "stub"
    return None


def curate(samples: Sequence[Sample], texts: Sequence[str], curation: Curation) -> tuple[list[Sample], dict[str, int]]:
    """The samples that stay, in order of (problem, sample), and how many each filter dropped.

    `texts[i]` is the decoded answer of `samples[i]` without special tokens. The shortest-percent
    filter (the released script's, off by default) comes last and counts characters: strictly shorter
    than the answer at that rank is dropped.
    """
    dropped: Counter[str] = Counter()
    kept: list[tuple[Sample, str]] = []
    for sample, text in sorted(zip(samples, texts, strict=True), key=lambda pair: pair[0].key):
        reason = reason_to_drop(text, sample.finish_reason, curation)
        if reason:
            dropped[reason] += 1
        else:
            kept.append((sample, text))
    if curation.drop_shortest_percent and kept:
        lengths = sorted(len(text) for _, text in kept)
        cutoff = lengths[int(len(lengths) * curation.drop_shortest_percent / 100)]
        long_enough = [pair for pair in kept if len(pair[1]) >= cutoff]
        dropped["shortest"] = len(kept) - len(long_enough)
        kept = long_enough
    return [sample for sample, _ in kept], dict(dropped)
