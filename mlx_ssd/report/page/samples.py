"""The samples of the token viewer: which are shown, and how they are packed.

A token takes 2 bytes, and 102 more for every arm that was analysed: columns of unsigned 16-bit integers (little
endian, base64), in the order of COLUMNS. Probabilities are in 1/65535, nats in 1/1000; ids are places in the table
`pieces`, which holds the text of each token that occurs. As many samples are packed as fit into a number of bytes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlx_ssd.report.page.text import shortened, visible

if TYPE_CHECKING:
    from mlx_ssd.records import Problem
    from mlx_ssd.report.page.decode import Pieces

BYTES = 3_000_000  # of the packed samples
MOST_TOKENS = 1500  # of a sample; the rest of a longer one is counted, not shown
MOST_TESTS = 40  # of a problem
LARGEST = 20  # samples that changed most are shown whatever their number
FULL = 0xFFFF
TOP = 10
LABELS = ("lock", "between", "fork")
# Each [n] but the last four, which are [n, 10].
COLUMNS = (
    "label", "support", "base.kept_mass", "student.kept_mass", "base.probability", "student.probability", "base.rank",
    "student.rank", "base.entropy", "student.entropy", "divergence", "base.top_ids", "base.top_probabilities",
    "student.top_ids", "student.top_probabilities",
)  # fmt: skip
_NATS = ("base.entropy", "student.entropy", "divergence")


@dataclass(frozen=True)
class Sample:
    """An answer to a test problem. `arm`: who wrote it; `analysed`: text's number in the analysis; `tokens`: how many
    there are, where `completion_ids` holds but the first of them."""

    problem_id: str
    sample_index: int
    arm: str
    completion_ids: Sequence[int]
    finish_reason: str | None = None
    verdict: str | None = None
    difficulty: str | None = None
    detail: str = ""  # of the verdict
    analysed: int | None = None
    tokens: int | None = None


@dataclass
class Packed:
    """What the page holds: `data` for the viewer's script; how many of how many samples are in it, and of whom."""

    data: dict[str, Any]
    shown: int
    of: int
    arms: list[str] = field(default_factory=list)  # analysed


Parts = Callable[[], Iterable[Any]]
"""Reads an arm's parts (mlx_ssd.analysis.store.Part), one at a time."""


def pack(
    samples: Sequence[Sample],
    problems: Mapping[str, Problem],
    pieces: Pieces,
    parts: Mapping[str, Parts],
    rules: Mapping[str, Mapping[str, float]],
    budget: int = BYTES,
) -> Packed:
    """`parts`, `rules`: of each analysed arm, main first; rules hold lock_top1 and fork_second. Two passes over the
    parts, one for who changed most and one for what is shown."""
    arms = list(parts)
    change = changes(parts[arms[0]]()) if arms else {}
    order = _order(samples, change)
    table, packed, used = _Table(pieces), {}, 0
    wanted = {samples[n].analysed for n in order[: _fitting(samples, order, len(arms), budget)]}
    columns = {arm: _columns(parts[arm](), wanted, rules[arm]) for arm in arms}
    known_problems: dict[str, dict[str, Any]] = {}
    for n in order:
        sample = samples[n]
        if arms and sample.analysed not in wanted:
            break
        problem = _problem(sample.problem_id, problems.get(sample.problem_id))
        entry = _entry(sample, table, [columns[arm].get(sample.analysed) for arm in arms], change.get(sample.analysed))
        size = _size(entry) + table.grown()
        if sample.problem_id not in known_problems:
            size += _size(problem)
        if used + size > budget or table.is_full:
            break
        used += size
        known_problems[sample.problem_id] = problem
        packed[n] = entry
    places = {name: place for place, name in enumerate(known_problems)}
    shown = [packed[n] | {"problem": places[samples[n].problem_id]} for n in sorted(packed)]
    data = {"v": 1, "arms": [visible(arm) for arm in arms], "columns": list(COLUMNS), "labels": list(LABELS)}
    data |= {"pieces": table.texts, "special": table.special}
    data |= {"problems": list(known_problems.values()), "samples": shown}
    return Packed(data, len(shown), len(samples), arms)


def _order(samples: Sequence[Sample], change: Mapping[int, float]) -> list[int]:
    """Places in `samples`: what changed most, then each problem's first answers before its second ones."""
    by_change = sorted(range(len(samples)), key=lambda n: -change.get(samples[n].analysed, 0.0))
    largest = [n for n in by_change[:LARGEST] if samples[n].analysed in change]
    rest = sorted(range(len(samples)), key=lambda n: (samples[n].sample_index, n))
    return list(dict.fromkeys([*largest, *rest]))


def _fitting(samples: Sequence[Sample], order: Sequence[int], arms: int, budget: int) -> int:
    """How many of `order` could fit at all: what is not read need not be kept in memory."""
    used = 0
    for count, n in enumerate(order):
        used += min(len(samples[n].completion_ids), MOST_TOKENS) * (2 + 102 * arms) * 4 // 3
        if used > budget:
            return count
    return len(order)


def _entry(
    sample: Sample, table: _Table, columns: Sequence[Mapping[str, np.ndarray] | None], change: float | None
) -> dict[str, Any]:
    ids = np.asarray(sample.completion_ids[:MOST_TOKENS], dtype=np.int64)
    entry: dict[str, Any] = {
        "i": sample.sample_index,
        "arm": visible(sample.arm),
        "n": len(ids),
        "t": _base64(table.places(ids)),
        "of": [_base64(*_measures(c, table)) if c is not None else None for c in columns],
    }
    optional = {"finish": sample.finish_reason, "verdict": sample.verdict, "difficulty": sample.difficulty}
    entry |= {name: visible(shortened(value, 200)) for name, value in optional.items() if value}
    if sample.detail:
        entry["detail"] = visible(shortened(sample.detail, 1000))
    tokens = len(sample.completion_ids) if sample.tokens is None else sample.tokens
    if tokens > len(ids):
        entry["cut"] = tokens
    if change is not None:
        entry["change"] = round(change, 5)
    return entry


def _measures(columns: Mapping[str, np.ndarray], table: _Table) -> Iterator[np.ndarray]:
    for name in COLUMNS:
        values = columns[name][:MOST_TOKENS]
        if name.endswith("top_ids"):
            yield table.places(values)
        elif name in _NATS:
            yield np.clip(np.rint(values * 1000.0), 0, FULL)
        elif values.dtype.kind == "f":
            yield np.clip(np.rint(values.astype(np.float64) * FULL), 0, FULL)
        else:
            yield np.clip(values, 0, FULL)


def _columns(parts: Iterable[Any], wanted: set[int | None], rule: Mapping[str, float]) -> dict[int, dict]:
    """The viewer's columns of each wanted text."""
    found = {}
    for part in parts:
        of = part.columns
        text = of["text"]
        for number in np.unique(text):
            if int(number) not in wanted:
                continue
            rows = text == number
            columns = {name: of[name][rows] for name in COLUMNS if name in of}
            columns["label"] = labels(columns["base.top_probabilities"], rule)
            columns["divergence"] = divergence(columns)
            found[int(number)] = columns
    return found


def changes(parts: Iterable[Any]) -> dict[int, float]:
    """Of each text: the mean of `divergence` over its tokens, in nats."""
    found = {}
    for part in parts:
        moved, text = divergence(part.columns), part.columns["text"]
        for number in np.unique(text):
            found[int(number)] = float(moved[text == number].mean())
    return found


def labels(top: np.ndarray, rule: Mapping[str, float]) -> np.ndarray:
    """Places in LABELS [n] by the analysis' rule. `top`: the base's largest probabilities, descending [n, 10]."""
    lock, fork = top[:, 0] >= rule["lock_top1"], top[:, 1] >= rule["fork_second"]
    return np.where(lock, 0, np.where(fork, 2, 1))


def divergence(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """At least KL(base || student) in nats [n]: that of the tokens among the ten likeliest of both, and all other
    tokens taken as one (taking outcomes together never raises a KL divergence)."""
    base, student = (columns[f"{side}.top_probabilities"].astype(np.float64) for side in ("base", "student"))
    same = columns["base.top_ids"][:, :, None] == columns["student.top_ids"][:, None, :]
    shared = same.any(axis=2)
    before = np.where(shared, base, 0.0)
    after = np.where(shared, (same * student[:, None, :]).sum(axis=2), 0.0)
    rest_before, rest_after = (np.clip(1.0 - side.sum(axis=1), 0.0, 1.0) for side in (before, after))
    terms = _terms(before, after).sum(axis=1) + _terms(rest_before, rest_after)
    return np.maximum(terms, 0.0)


def _terms(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """p log(p / q). Sums of float32 are not finer than 1e-7: what is below is no mass."""
    floor = 1e-7
    there = before > floor
    ratio = np.where(there, before, 1.0) / np.maximum(np.where(there, after, 1.0), floor)
    return np.where(there, before * np.log(ratio), 0.0)


class _Table:
    """The texts of the tokens that occur; an id's place in them is what a sample holds."""

    def __init__(self, pieces: Pieces):
        self._pieces, self._places, self._reported = pieces, {}, 0
        self.texts: list[str] = []
        self.special: list[int] = []

    @property
    def is_full(self) -> bool:
        return len(self.texts) > FULL

    def places(self, ids: np.ndarray) -> np.ndarray:
        """Of ids of any shape."""
        unique, inverse = np.unique(ids, return_inverse=True)
        new = [int(token) for token in unique if int(token) not in self._places]
        for token, text in zip(new, self._pieces.of(new), strict=True):
            self._places[token] = len(self.texts)
            if self._pieces.is_special(token):
                self.special.append(len(self.texts))
            self.texts.append(visible(shortened(text, 200)))
        places = np.array([self._places[int(token)] for token in unique], dtype=np.int64)
        return places[inverse].reshape(np.shape(ids))

    def grown(self) -> int:
        """Bytes of the texts that came in since the last question."""
        new, self._reported = self.texts[self._reported :], len(self.texts)
        return sum(len(json.dumps(text, ensure_ascii=False).encode()) + 8 for text in new)


def _problem(name: str, problem: Problem | None) -> dict[str, Any]:
    found: dict[str, Any] = {"id": visible(shortened(name, 200))}
    if problem is None:
        return found
    found["prompt"] = visible(shortened(problem.prompt))
    lines = [visible(shortened(line, 1000)) for line in map(line_of_test, [problem] * MOST_TESTS, problem.tests)]
    if len(problem.tests) > MOST_TESTS:
        lines.append(f"… and {len(problem.tests) - MOST_TESTS:,} more tests")
    return found | {"tests": lines}


def line_of_test(problem: Problem, test: Mapping[str, Any]) -> str:
    """A test in one line, as a reader of Python would write it."""
    if "args" in test:
        return f"{problem.entry_point}({', '.join(map(repr, test['args']))}) == {test['expected']!r}"
    if "check" in test:
        return test["check"]
    if "answer" in test:
        return f"the answer is {test['answer']}"
    return f"stdin {test['stdin']!r} → stdout {test['stdout']!r}"


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode()) + 16


def _base64(*columns: np.ndarray) -> str:
    flat = np.concatenate([np.asarray(column).ravel() for column in columns])
    return base64.b64encode(flat.astype("<u2").tobytes()).decode()
