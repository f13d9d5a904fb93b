"""Batched generation behind a seam: requests in, completions out in the order they finish.

Of mlx-lm the models and their caches are used, not its BatchGenerator, because that
- draws through a sampler that is told neither which row it serves nor its position, and whose own samplers truncate
  before they temper and share one global random state: a sample would depend on its batch mates;
- takes the logarithm of a softmax over the vocabulary and cuts it into an array a row, which no draw needs;
- keeps every row as long as the longest, and copies all rows where one joins, ends, or the batch grows (`kv`);
- runs a prompt again for each of its samples, and what all prompts begin with for each of them (`prefill`);
- admits rows by number and not by memory, which on a Mac ends in an abort that nobody can catch (`memory`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache

from mlx_ssd import heartbeat
from mlx_ssd.decoding.draw import NO_TOKEN
from mlx_ssd.decoding.policy_mlx import make_row_sampler
from mlx_ssd.decoding.rng import uniform_u32
from mlx_ssd.sampling.kv import GroupedKV, can_group, grouped_attention
from mlx_ssd.sampling.loops import LoopStop
from mlx_ssd.sampling.memory import Room
from mlx_ssd.sampling.plain import PlainKV
from mlx_ssd.sampling.prefill import Prefill, Prefilled
from mlx_ssd.sampling.requests import Completed, Request, Row, not_finite

CLEAR_CACHE_STEPS = 512


def generate(
    model: Any,
    requests: Iterable[Request],
    stop_tokens: Iterable[int],
    rows: int,
    on_tokens: Callable[[int], None] | None = None,
    *,
    loops: LoopStop | None = None,
    memory: int | None = None,
) -> Iterator[Completed]:
    """Decode up to `rows` requests side by side, in the order given; each is yielded when it ends, its place reused.

    A completion is a function of the model, the prompt, the policy and the request's random key alone: not of batch
    mates, their number or order, of `memory`, or of having been put back, except through kernel rounding (rule 3 in
    docs/method.md). Put requests of one prompt side by side: it is run once for all of them, and what all prompts
    begin with once for all. Put long ones first: what is left at the end then is short.
    loops: ends completions that only repeat themselves; None lets them run.
    memory: bytes that weights, caches and working space may take together; None sets no limit. Fewer rows are decoded
    where more would not fit.
    on_tokens is called after each step with the number of tokens it drew.
    Raises BadInput before anything is run if one request alone needs more than `memory`, WorkFailed when the model's
    output is not finite.
    """
    requests = list(requests)
    if requests:
        yield from Decoding(model, requests, stop_tokens, rows, loops=loops, memory=memory).run(on_tokens)


class Decoding:
    """The rows in decoding, those that will follow, and the loop over steps.

    A step is one token for every row. While it is computed, what the one before it drew is handed on, and the next is
    already built, so that the device does not wait for Python; where a row ends or joins, that graph is thrown away.
    The next step is not begun before this one ends: caches could then not be written in place, as the attention of
    this one still reads them, and would be copied.
    """

    def __init__(
        self,
        model: Any,
        requests: Sequence[Request],
        stop_tokens: Iterable[int],
        rows: int,
        *,
        loops: LoopStop | None = None,
        memory: int | None = None,
        more: Callable[[bool], Sequence[Request]] | None = None,
    ):
        """As in `generate`. Raises BadInput as it does.

        more: hands out what is drawn, a few at a time, where others draw of the same requests; these then only say what
        will come at the most, and how it begins. It is told whether nothing is in decoding: then it waits until there
        is something, and where it hands out nothing the work is over.
        """
        layers = make_prompt_cache(model)
        grouped = can_group(model, layers)
        self._model, self._most_rows = model, rows
        self._stops = np.array(sorted(set(stop_tokens)), dtype=np.uint32)
        all_rows = [Row(request, loops) for request in requests]
        self._more, self._loops = more, loops
        self._waiting = deque([] if more else all_rows)
        self._joining: deque[Row] = deque()  # whose contexts are being run, or have been
        self._kv = GroupedKV(len(layers)) if grouped else PlainKV()
        self._room = Room(model, [row.size for row in all_rows], memory, grouped)
        contexts = [row.context for row in all_rows]
        self._prefill = Prefill(model, contexts, self._room.prefill_tokens, together=grouped)
        self.put_back = 0  # rows that memory ran out for
        self._draw: Callable[..., mx.array] | None = None  # of the rows in decoding, as all that follows
        self._random_keys = (np.array([], dtype=np.uint32), np.array([], dtype=np.uint32))
        self._drawn = self._limits = np.array([], dtype=np.int64)

    @property
    def expected_peak(self) -> float:
        """Bytes that were thought to be needed, at the highest; `mx.get_peak_memory` tells what was."""
        return self._room.expected_peak

    def run(self, on_tokens: Callable[[int], None] | None = None) -> Iterator[Completed]:
        """The completions, in the order they end."""
        with grouped_attention():
            yield from self._steps(on_tokens)

    def _steps(self, on_tokens: Callable[[int], None] | None) -> Iterator[Completed]:
        ended: list[tuple[Row, str]] = []
        ahead: mx.array | None = None
        steps = 0
        while self._has_waiting() or self._joining or self._kv.rows:
            self._admit(len(ended))
            self._prefill.advance()
            heartbeat.alive()  # while prompts are run nothing is drawn, and nobody is told
            ready = self._ready(len(ended))
            if ended or ready or self._kv.needs_change():
                if ahead is not None:
                    self._kv.undo_step()
                    ahead = None
                self._change([row for row, _ in ended], ready)
            drawn = None
            if self._kv.rows:
                drawn = ahead if ahead is not None else self._build()
                ahead = None
                self._kv.keep_step()
                mx.async_eval(drawn)
            for row, reason in ended:
                self._room.lengths.add(len(row.tokens))
                yield Completed(row.request.key, row.tokens, reason)
            ended = []
            if drawn is None:
                continue
            if self._kv.can_undo and not self._kv.needs_change():
                ahead = self._build(drawn)
            ended = self._read(drawn)
            if on_tokens:
                on_tokens(len(self._kv.rows))
            steps += 1
            if steps % CLEAR_CACHE_STEPS == 0:
                mx.clear_cache()

    def _has_waiting(self) -> bool:
        if self._more and not self._waiting:
            requests = self._more(not (self._joining or self._kv.rows))
            self._waiting.extend(Row(request, self._loops) for request in requests)
        return bool(self._waiting)

    def _admit(self, leaving: int) -> None:
        """Have contexts run for the places that are free, and a few more: together, and before they are needed."""
        spare = max(self._most_rows // 8, 2)
        free = self._most_rows - len(self._kv.rows) + leaving
        if len(self._joining) > max(free, 0) + spare // 2:
            return
        held = self._prefill.nbytes
        admitted = [row.size for row in (*self._kv.rows, *self._joining)]
        while len(self._joining) < free + spare and self._has_waiting():
            row = self._waiting[0]
            if admitted and not self._room.will_fit([*admitted, row.size], held):
                break
            admitted.append(row.size)
            self._joining.append(self._waiting.popleft())
            self._prefill.ask(row.context)
        if admitted:
            self._room.expected_peak = max(self._room.expected_peak, self._room.expect(admitted))

    def _ready(self, leaving: int) -> list[tuple[Row, Prefilled]]:
        """Rows that can join now, and what they are decoded from."""
        free = self._most_rows - len(self._kv.rows) + leaving
        ready = []
        for row in list(self._joining):
            prefilled = self._prefill.get(row.context)
            if prefilled and len(ready) < free:
                ready.append((row, prefilled))
                self._joining.remove(row)
        return ready

    def _change(self, leaving: list[Row], ready: list[tuple[Row, Prefilled]]) -> None:
        staying = [row for row in self._kv.rows if row not in leaving]
        # Where memory is short after all, the youngest are put back: they have the least to be run again.
        present = sorted([*staying, *(row for row, _ in ready)], key=lambda row: -len(row.tokens))
        while len(present) > 1 and not self._room.fits([row.size for row in present], self._prefill.nbytes):
            row = present.pop()
            self._waiting.appendleft(row)
            self.put_back += row in self._kv.rows
            if row in self._kv.rows:
                leaving = [*leaving, row]
            ready = [(other, prefilled) for other, prefilled in ready if other is not row]
        self._kv.change(leaving, ready)
        if self._room.is_over(self._kv.nbytes + self._prefill.nbytes):
            self._kv.shrink(1.0)
        rows = self._kv.rows
        self._draw = None
        self._random_keys = tuple(np.array([row.request.random_key[i] for row in rows], np.uint32) for i in (0, 1))
        self._drawn = np.array([len(row.tokens) for row in rows])
        self._limits = np.array([row.request.max_tokens for row in rows])
        if ready:
            self._prefill.keep(row.context for row in (*self._joining, *([self._waiting[0]] if self._waiting else [])))

    def _build(self, drawn: mx.array | None = None) -> mx.array:
        """The graph of one step: tokens uint32 [rows]. Its inputs are `drawn`, which is being computed, or known."""
        rows = self._kv.rows
        self._kv.begin_step()
        if drawn is None:
            inputs = mx.array([row.last for row in rows], dtype=mx.uint32)
        else:
            inputs = mx.where(drawn == NO_TOKEN, 0, drawn)  # the model must not look NO_TOKEN up
        logits = self._model(inputs[:, None], cache=self._kv.caches)[:, -1]
        if self._draw is None:
            self._draw = make_row_sampler([row.request.policy for row in rows], logits.shape[-1])
        positions = self._drawn + (drawn is not None)
        return self._draw(logits, mx.array(uniform_u32(self._random_keys, positions)))

    def _read(self, drawn: mx.array) -> list[tuple[Row, str]]:
        """Wait for a step; the rows that it ended, and how."""
        tokens = np.array(drawn)
        self._drawn += 1
        rows = self._kv.rows
        for row, token in zip(rows, tokens.tolist(), strict=True):
            row.tokens.append(token)
        if (tokens == NO_TOKEN).any():
            raise not_finite(rows[int(np.argmax(tokens == NO_TOKEN))].request.key)
        stopped, full = np.isin(tokens, self._stops), self._drawn == self._limits
        ended = []
        for place, row in enumerate(rows):
            if stopped[place]:
                ended.append((row, "stop"))
            elif row.loop and row.loop.add(row.tokens[-1]):
                ended.append((row, "loop"))
            elif full[place]:
                ended.append((row, "length"))
        return ended
