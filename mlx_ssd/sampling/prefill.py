"""Run contexts through the model, each once: a prompt, or a prompt and what was drawn of a row that was put back.

Tokens that all prompts begin with, such as the template's and the system message's, are run once for all. A context
leaves out the last token of what is known: that one goes through the model as the row's first decoding step, beside
all other rows', so that no logits over prompts are ever computed.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import ConcatenateKVCache, make_prompt_cache

from mlx_ssd.budget.decoding import PADDING

WORTHWHILE = 8  # tokens that a shared beginning must have

Context = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Prefilled:
    """What the model made of a context: row `row` of mlx-lm's caches, one a layer, of which `length` tokens count."""

    caches: Sequence[Any]
    row: int
    length: int


class Prefill:
    """Contexts that are wanted, and those that are ready.

    tokens: at most so many go through the model at once; longer contexts go chunk by chunk, between decoding steps.
    together: whether contexts of like length may be padded on the right and run side by side; true of caches that hold
    a key and a value for each token, where what stands behind a row's end is simply not looked at.
    """

    def __init__(self, model: Any, contexts: Sequence[Context], tokens: int, together: bool):
        self._model, self._tokens, self._together = model, tokens, together
        self._waiting: dict[Context, None] = {}
        self._ready: dict[Context, Prefilled] = {}
        self._job: _Job | None = None
        self._shared = shared_beginning(contexts)
        self._beginning: list[Any] = []

    def ask(self, context: Context) -> None:
        """Have a context run, unless it is ready or already being run."""
        if context not in self._ready and not (self._job and context in self._job.contexts):
            self._waiting[context] = None

    def get(self, context: Context) -> Prefilled | None:
        return self._ready.get(context)

    def keep(self, wanted: Iterable[Context]) -> None:
        """Forget the contexts that are ready and not among these."""
        wanted = set(wanted)
        self._ready = {
            context: alone(prefilled) if self._together else prefilled
            for context, prefilled in self._ready.items()
            if context in wanted
        }

    @property
    def nbytes(self) -> int:
        held = {id(p.caches): p.caches for p in self._ready.values()} | {0: self._beginning}
        if self._job:
            held[1] = self._job.caches
        return sum(cache.nbytes for caches in held.values() for cache in caches)

    def advance(self) -> bool:
        """Run one chunk of what is waiting. False if nothing was."""
        if self._shared and not self._beginning and self._waiting:
            self._run_beginning()
        if self._job is None:
            self._job = self._next_job()
        if self._job is None:
            return False
        job = self._job
        width = max(self._tokens // len(job.contexts), 1)
        chunk = job.tokens[:, job.done : job.done + width]
        if chunk.shape[1]:
            self._model(chunk, cache=job.caches)
            mx.async_eval([cache.state for cache in job.caches])
            job.done += chunk.shape[1]
        if job.done == job.tokens.shape[1]:
            self._job = None
            for row, context in enumerate(job.contexts):
                self._ready[context] = Prefilled(job.caches, row, len(context))
        return True

    def _run_beginning(self) -> None:
        self._beginning = self._new_caches()
        for start in range(0, len(self._shared), self._tokens):
            self._model(mx.array([self._shared[start : start + self._tokens]]), cache=self._beginning)
            mx.eval([cache.state for cache in self._beginning])

    def _new_caches(self) -> list[Any]:
        if self._together:  # grown by what comes, where mlx-lm's own adds 256 tokens at a time
            return [ConcatenateKVCache() for _ in make_prompt_cache(self._model)]
        return make_prompt_cache(self._model)

    def _next_job(self) -> _Job | None:
        if not self._waiting:
            return None
        skip = len(self._shared)
        chosen = [next(iter(self._waiting))]
        if self._together:
            contexts = sorted(self._waiting, key=len)
            shortest = len(contexts[0]) - skip
            chosen = [
                context
                for number, context in enumerate(contexts, 1)
                if len(context) - skip <= PADDING * shortest and (len(context) - skip) * number <= self._tokens
            ] or contexts[:1]
        for context in chosen:
            del self._waiting[context]
        width = max(map(len, chosen)) - skip
        padded = [[*context[skip:], *[0] * (width - len(context) + skip)] for context in chosen]
        return _Job(chosen, mx.array(padded, dtype=mx.int32).reshape(len(chosen), width), self._begun(len(chosen)))

    def _begun(self, rows: int) -> list[Any]:
        """Caches for so many rows, with the shared beginning in them."""
        if not self._beginning:
            return self._new_caches()
        if not self._together:
            return [copy.deepcopy(cache) for cache in self._beginning]
        return _of_rows(self._beginning, [0] * rows)


@dataclass
class _Job:
    contexts: list[Context]
    tokens: mx.array  # [contexts, longest], without the shared beginning
    caches: list[Any]
    done: int = 0


def shared_beginning(contexts: Sequence[Context]) -> Context:
    """The tokens that all contexts begin with, or nothing if they are too few to be worth it."""
    if not contexts:
        return ()
    # Of sorted sequences, the first and the last share what all share.
    shared = os.path.commonprefix([min(contexts), max(contexts)])
    return tuple(shared) if len(shared) >= WORTHWHILE else ()


def alone(prefilled: Prefilled) -> Prefilled:
    """The same in arrays of its own, so that its neighbours' can be freed."""
    first = prefilled.caches[0].keys
    if first is None or first.shape[0] == 1:
        return prefilled
    caches = _of_rows(prefilled.caches, [prefilled.row])
    mx.eval([cache.state for cache in caches])
    return Prefilled(caches, 0, prefilled.length)


def _of_rows(caches: Sequence[Any], rows: list[int]) -> list[Any]:
    copies = []
    for cache in caches:
        new = ConcatenateKVCache()
        new.state = tuple(mx.take(array, mx.array(rows), axis=0) for array in cache.state)
        copies.append(new)
    return copies
