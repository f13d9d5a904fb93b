"""What decoding holds in memory: the engine's admission (sampling/memory.py) and the plan reckon with these.

    peak     = weights + prefill + rows
    prefill  = tokens that go through the model at once x one layer's activations, and on a CPU the scores of attention
    rows     = of each row the keys and values of its slot, and the logits of a step with their float32 copy
    a slot   = 128, 192, 256, 384, 512, ... tokens (sampling/kv.py)

Layers that look back a window of tokens hold no more than these of a row. A model with such layers is decoded on
mlx-lm's own caches (sampling/plain.py), which keep every row as long as the longest: there all rows are reckoned so.

How many rows are of which length at a time is forecast by the engine from the answers it has seen. Before any, their
lengths are taken to be spread evenly around the mean, up to max_tokens: with S(t) the share of them longer than t, a
row is at its step t with probability S(t) / mean, so that

    of a row on average = sum over t of S(t) x slot(prompt + t) / mean
    rows at the highest = max over t of S(t) x slot(prompt + t) + (1 - S(t)) x the average, since all begin together
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from mlx_ssd.budget.model_size import BYTES, ModelSize

SMALLEST = 128  # tokens of the smallest slot
MOST_PREFILL, LEAST_PREFILL = 2048, 32  # tokens of contexts in one forward pass
PREFILL_SHARE = 0.1  # of the memory beside weights and one row
PADDING = 1.25  # contexts are run side by side if the longest has at most so much of the shortest
GROWTH = 1.1  # slots that stand empty: a group of them grows by a quarter at a time
POINTS, DRAIN_POINTS = 128, 16  # at which lengths are looked at


def capacity_for(tokens: int) -> int:
    """Tokens of the slot that holds so many: 128, 192, 256, 384, 512, ... at most half as much again."""
    size = SMALLEST
    while size < tokens:
        size += size // 2 if size & (size - 1) == 0 else size // 3
    return size


def prefill_bytes(hidden: int, mlp: int, heads: int, number: int, longest_prompt: int, fused: bool) -> int:
    """What a forward pass takes beside weights and caches for a token of a prompt: one layer's activations.

    number: bytes of one. fused: attention keeps its scores to itself, as Metal's kernel does.
    """
    width = 6 * hidden + 3 * mlp
    if not fused:
        width += 2 * heads * longest_prompt
    return width * number


def logit_bytes(vocabulary: int, number: int) -> int:
    """What a decoding step takes for a row: its logits, and their float32 copy."""
    return vocabulary * (number + 4)


def prefill_tokens(memory: float, weights: float, row: float, token: float) -> int:
    """How many tokens of contexts go through the model at once: fewer where memory is short. Arguments in bytes."""
    spare, tokens = PREFILL_SHARE * (memory - weights - row), MOST_PREFILL
    while tokens > LEAST_PREFILL and tokens * token > spare:
        tokens //= 2
    return tokens


@dataclass(frozen=True)
class Work:
    """Tokens of a prompt and of an answer that are expected, and of the longest."""

    prompt: int
    answer: int
    longest_prompt: int
    longest_answer: int

    @property
    def spread(self) -> tuple[int, int]:
        """The shortest and the longest answer that are reckoned with, around the mean."""
        longest = min(2 * self.answer, self.longest_answer)
        return 2 * self.answer - longest, longest

    def survival(self, tokens: float) -> float:
        """The share of answers of more than so many tokens."""
        shortest, longest = self.spread
        if tokens < shortest:
            return 1.0
        return 0.0 if tokens >= longest else (longest - tokens) / (longest - shortest)

    def together(self, count: int) -> float:
        """Tokens of so many prompts that go through the model at once: of like length, padded to the longest.

        Lengths are taken to be spread evenly around the mean, up to the longest.
        """
        spread = 2 * (self.longest_prompt - self.prompt)
        alike = (1 - 1 / PADDING) * self.longest_prompt
        return max(count * min(alike / spread, 1) if spread else count, 1) * self.longest_prompt

    def pairs(self, most: int) -> float:
        """Pairs of a token with those of its own sample, for a token of samples that have up to `most`; 0 for others.

        Samples are taken to be of all lengths between the shortest and the longest that are reckoned with.
        """
        shortest, longest = self.spread
        low = max(2 * self.prompt - self.longest_prompt, 0) + shortest
        high = self.longest_prompt + longest
        if low == high:
            return float(low) if low <= most else 0.0
        short = min(high, most)
        return max(short**3 - low**3, 0) / 3 / ((high**2 - low**2) / 2)

    def left(self, started_together: bool) -> tuple[list[float], float]:
        """The shares of the rows that are still there once no answer waits, at steps so far apart.

        Of rows that did not start together the rest of an answer is of what time it is met at: longer than t with
        probability sum over s from t on of S(s) / mean.
        """
        longest = self.spread[1]
        width = longest / DRAIN_POINTS
        there = [self.survival(width * (i + 0.5)) for i in range(DRAIN_POINTS)]
        if started_together:
            return there, width
        later = [sum(there[i:]) - there[i] / 2 for i in range(DRAIN_POINTS)]
        return [width * rest / self.answer for rest in later], width

    def slots(self) -> tuple[float, float]:
        """Tokens of a row's slot: on average, and of the rows that began together at the highest."""
        longest = self.spread[1]
        points = [(longest * (i + 0.5) / POINTS, longest / POINTS) for i in range(POINTS)]
        held = [(self.survival(t), width, capacity_for(int(self.prompt + t) + 1)) for t, width in points]
        average = sum(share * width * slot for share, width, slot in held) / self.answer
        return average, max(share * slot + (1 - share) * average for share, _, slot in held)


def decoding_parts(size: ModelSize, rows: int, work: Work, memory: float, fused: bool) -> Mapping[str, float]:
    """Bytes by part, their sum the peak: one row as long as can be, and the others as they are expected.

    At the beginning the prompts of all rows are run and no row is decoded yet; later rows are at their highest and a
    few prompts are run beside them. The larger counts, or what loading takes. The engine admits by bytes and puts rows
    back where memory is short, so that a longer answer costs time, no abort.
    """
    number = BYTES[size.dtype]
    longest = row_bytes(size, work.longest_prompt + work.longest_answer)
    a_token = prefill_bytes(size.hidden, size.mlp, size.heads, number, work.longest_prompt, fused)
    logits = logit_bytes(size.vocabulary, number)
    most = prefill_tokens(memory, size.weight_bytes, longest + logits, a_token)
    few = max(rows // 8, 2)  # whose prompts are run before there is a place for them
    others = longest if size.window_bytes else GROWTH * work.slots()[1] * size.kv_bytes
    first = {
        "kv": (rows + few) * (work.prompt * size.kv_bytes + size.window_bytes),
        "activations": min(most, work.together(rows + few)) * a_token,
    }
    later = {
        "kv": longest + (rows - 1) * others,
        "activations": min(most, work.together(2 * few)) * a_token,
    }
    at_work = max(first, later, key=lambda parts: sum(parts.values())) | {"logits": rows * logits}
    loading = {"loading": size.cast_bytes}
    return {"weights": size.weight_bytes, **max(at_work, loading, key=lambda parts: sum(parts.values()))}


def row_bytes(size: ModelSize, tokens: int) -> float:
    """Keys and values of a row that holds so many."""
    return capacity_for(tokens) * size.kv_bytes + size.window_bytes


def decoding_bytes(size: ModelSize, rows: int, work: Work, memory: float, fused: bool) -> float:
    return sum(decoding_parts(size, rows, work, memory, fused).values())


def rows_that_fit(size: ModelSize, work: Work, memory: float, fused: bool, most: int = 1024) -> int:
    """The most rows side by side; 0 if not even one fits."""
    rows = range(1, most + 1)
    return bisect_right(rows, memory, key=lambda count: decoding_bytes(size, count, work, memory, fused))
