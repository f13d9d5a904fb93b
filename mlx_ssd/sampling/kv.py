"""Keys and values of the rows being decoded: rows of like length lie side by side and are attended to together.

mlx-lm's BatchKVCache is one array for all rows, padded on the left to the longest: a row of 300 tokens beside one of
4,000 takes the memory of 4,000 and is read as 4,000 at every step; it is copied whole whenever it grows by 256, a row
joins or a row ends. Here a row begins at position 0 of a slot in the group of its length. Writing a token is a scatter
in place; a row that fills its slot moves to the next group, and one that ends gives its slot to the group's last row.

Slots are written in place only while nothing else holds the array, so what moves is read and evaluated before.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from mlx_ssd.attention import attention_through, plain_attention
from mlx_ssd.budget.decoding import capacity_for
from mlx_ssd.sampling.prefill import Prefilled


class GroupedKV:
    """The rows in decoding, in the order of their groups, and their keys and values in every layer.

    Rows are any hashable objects. `caches` is what the model is called with; each call writes one token a row.
    """

    can_undo = True

    def __init__(self, layers: int):
        self._groups: list[_Group] = []  # by capacity, ascending
        self.caches = [_Layer(self, number) for number in range(layers)]
        self.spans: list[tuple[int, int, _Group]] = []  # the rows of each group, as places in `rows`
        self.offsets = mx.array([], dtype=mx.int32)  # tokens that each row holds

    @property
    def rows(self) -> list[Any]:
        return [row for group in self._groups for row in group.rows]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for group in self._groups for pair in group.arrays for array in pair)

    def needs_change(self) -> bool:
        """Whether some row must move before the next step."""
        return any(group.capacity in group.lengths for group in self._groups)

    def change(self, leaving: Sequence[Any], joining: Sequence[tuple[Any, Prefilled]]) -> None:
        """Take rows out and in, and move those whose slots are full. Nothing may be computing meanwhile."""
        gone = set(leaving)
        arrivals: dict[int, list[_Arrival]] = {}  # by capacity
        moving: list[_Pair] = []  # what is read before anything is written
        for group in self._groups:
            full = [place for place, row in enumerate(group.rows) if group.is_full(place) and row not in gone]
            if full:
                copies = group.read(full)
                moving += copies
                for at, place in enumerate(full):
                    row, tokens = group.rows[place], group.lengths[place]
                    arrivals.setdefault(capacity_for(tokens + 1), []).append(_Arrival(row, tokens, copies, at))
                    gone.add(row)
        for row, prefilled in joining:
            pairs = [(cache.keys, cache.values) for cache in prefilled.caches]
            arrival = _Arrival(row, prefilled.length, pairs, prefilled.row, id(prefilled.caches))
            arrivals.setdefault(capacity_for(prefilled.length + 1), []).append(arrival)
        for group in self._groups:
            moving += group.close_gaps(gone)
        mx.eval(moving)
        for group in self._groups:
            group.write_moved()
        of = {group.capacity: group for group in self._groups}
        for capacity, rows in arrivals.items():
            of.setdefault(capacity, _Group(capacity)).add(rows)
        self._groups = [of[capacity] for capacity in sorted(of) if of[capacity].rows]
        self.shrink(0.5)

    def shrink(self, used: float) -> None:
        """Give memory back in groups of which less than this share is in use."""
        for group in self._groups:
            group.shrink(used)

    def begin_step(self) -> None:
        """Fix where the next call of the model writes, and what it attends to."""
        self.spans, start = [], 0
        for group in self._groups:
            self.spans.append((start, start + len(group.rows), group))
            start += len(group.rows)
            group.begin_step()
        self.offsets = mx.concatenate([group.offsets for group in self._groups])
        for layer in self.caches:
            layer.written = False

    def undo_step(self) -> None:
        """As if the last step had not been begun; only before it is computed."""
        for group in self._groups:
            group.undo_step()

    def keep_step(self) -> None:
        """Let go of what `undo_step` needs, so that the step can write in place."""
        for group in self._groups:
            group.before = None


_Pair = tuple[mx.array, mx.array]  # keys and values of one layer: [rows, heads, tokens, size]


@dataclass(frozen=True)
class _Arrival:
    """A row that comes: its `tokens` first tokens in row `at` of these pairs, one a layer."""

    row: Any
    tokens: int
    pairs: Sequence[_Pair]
    at: int
    batch: int = 0  # arrivals out of the same arrays have the same


class _Group:
    """Slots of one capacity: a pair of arrays [slots, heads, capacity, size] a layer; rows fill the first slots."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.rows: list[Any] = []
        self.lengths: list[int] = []  # tokens that each row holds
        self.arrays: list[_Pair] = []
        self.before: list[_Pair] | None = None
        self._moved: tuple[list[int], list[_Pair]] | None = None

    @property
    def slots(self) -> int:
        return self.arrays[0][0].shape[0] if self.arrays else 0

    def is_full(self, place: int) -> bool:
        return self.lengths[place] == self.capacity

    def read(self, places: list[int]) -> list[_Pair]:
        """Copies of rows; slices would be views, and hold the arrays."""
        at = mx.array(places)
        return [(mx.take(keys, at, axis=0), mx.take(values, at, axis=0)) for keys, values in self.arrays]

    def close_gaps(self, gone: set[Any]) -> list[_Pair]:
        """Forget rows; the last of the others will move into their slots. Gives what must be evaluated before."""
        staying = [row not in gone for row in self.rows]
        count = sum(staying)
        holes = [place for place in range(count) if not staying[place]]
        movers = [place for place in range(count, len(self.rows)) if staying[place]]
        for hole, mover in zip(holes, movers, strict=True):
            self.rows[hole], self.lengths[hole] = self.rows[mover], self.lengths[mover]
        del self.rows[count:], self.lengths[count:]
        self._moved = (holes, self.read(movers)) if holes else None
        return self._moved[1] if self._moved else []

    def write_moved(self) -> None:
        if self._moved:
            self._write(*self._moved)
            self._moved = None

    def add(self, arrivals: list[_Arrival]) -> None:
        first = len(self.rows)
        self.rows += [arrival.row for arrival in arrivals]
        self.lengths += [arrival.tokens for arrival in arrivals]
        with_tokens = [(place, arrival) for place, arrival in enumerate(arrivals, first) if arrival.tokens]
        if like := with_tokens[0][1].pairs if with_tokens else self.arrays:
            self._grow(like)
        for _, batch in groupby(with_tokens, key=lambda item: item[1].batch):
            members = list(batch)
            at = mx.array([arrival.at for _, arrival in members])
            longest = max(arrival.tokens for _, arrival in members)
            pairs = [(keys[at, :, :longest], values[at, :, :longest]) for keys, values in members[0][1].pairs]
            self._write([place for place, _ in members], pairs)

    def _write(self, places: list[int], pairs: list[_Pair]) -> None:
        at, tokens = mx.array(places), pairs[0][0].shape[2]
        for (keys, values), (new_keys, new_values) in zip(self.arrays, pairs, strict=True):
            keys[at, :, :tokens] = new_keys
            values[at, :, :tokens] = new_values

    def _grow(self, like: Sequence[_Pair]) -> None:
        """Slots for all rows, and some more: each growth copies the group."""
        if len(self.rows) <= self.slots:
            return
        more = max(len(self.rows), self.slots + self.slots // 4) - self.slots

        def grown(old: mx.array | None, example: mx.array) -> mx.array:
            new = mx.zeros((more, example.shape[1], self.capacity, example.shape[3]), example.dtype)
            return new if old is None else mx.concatenate([old, new])

        if not self.arrays:
            self.arrays = [(grown(None, keys), grown(None, values)) for keys, values in like]
            return
        self._replace(lambda old: grown(old, old))

    def shrink(self, used: float) -> None:
        """Give memory back where less than this share of it is in use."""
        if len(self.rows) < used * self.slots:
            at = mx.arange(len(self.rows))
            self._replace(lambda old: mx.take(old, at, axis=0))

    def _replace(self, change: Callable[[mx.array], mx.array]) -> None:
        """Copy array by array, so that only one is there twice."""
        for layer, (keys, values) in enumerate(self.arrays):
            self.arrays[layer] = ()
            new_keys, new_values = change(keys), change(values)
            del keys
            mx.eval(new_keys)
            del values
            mx.eval(new_values)
            self.arrays[layer] = new_keys, new_values

    def begin_step(self) -> None:
        self.before = [(copy.copy(keys), copy.copy(values)) for keys, values in self.arrays]
        self.offsets = mx.array(self.lengths, dtype=mx.int32)
        self.lengths = [length + 1 for length in self.lengths]
        self._at = mx.arange(len(self.rows))
        self._longest = max(self.lengths)
        seen = mx.arange(self._longest)[None, None, None]
        alike = min(self.lengths) == self._longest
        self._mask = None if alike else seen <= self.offsets[:, None, None, None]

    def undo_step(self) -> None:
        self.arrays, self.before = self.before, None
        self.lengths = [length - 1 for length in self.lengths]

    def attend(self, layer: int, queries: mx.array, keys: mx.array, values: mx.array, **options: Any) -> mx.array:
        """Write one token a row in a layer, then attend to all: queries, result [rows, heads, 1, size]."""
        rows = len(self.rows)
        if len(self.arrays) == layer:  # no row came with tokens
            shape = (rows, keys.shape[1], self.capacity)
            self.arrays.append(tuple(mx.zeros((*shape, new.shape[3]), new.dtype) for new in (keys, values)))
        held_keys, held_values = self.arrays[layer]
        held_keys[self._at, :, self.offsets] = keys[:, :, 0]
        held_values[self._at, :, self.offsets] = values[:, :, 0]
        return mx.fast.scaled_dot_product_attention(
            queries,
            held_keys[:rows, :, : self._longest],
            held_values[:rows, :, : self._longest],
            mask=self._mask,
            **options,
        )


class NotGrouped(Exception):
    """The model asks of its cache what `GroupedKV` cannot give."""


class _Layer:
    """What the model's own code takes for the cache of one layer."""

    def __init__(self, kv: GroupedKV, number: int):
        self._kv, self._number = kv, number
        self.written = False  # in this step

    @property
    def offset(self) -> mx.array:
        """Tokens that each row holds: like mlx-lm's, one more as soon as the step's own is written."""
        return self._kv.offsets + 1 if self.written else self._kv.offsets

    def make_mask(self, length: int, return_array: bool = False, window_size: int | None = None) -> None:
        if length != 1 or window_size is not None:
            raise NotGrouped

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[_Pending, _Pending]:
        self.written = True
        return _Pending(keys), _Pending(values)

    def attend(self, queries: mx.array, keys: _Pending, values: _Pending, **options: Any) -> mx.array:
        parts = [
            group.attend(self._number, queries[a:b], keys.array[a:b], values.array[a:b], **options)
            for a, b, group in self._kv.spans
        ]
        return parts[0] if len(parts) == 1 else mx.concatenate(parts)


class _Pending:
    """New keys or values on their way from the cache to the attention; no array, so nobody can take it for one."""

    def __init__(self, array: mx.array):
        self.array = array


def _grouped_attention(queries, keys, values, cache, scale, mask, sinks=None):
    if isinstance(cache, _Layer):
        return cache.attend(queries, keys, values, scale=scale, sinks=sinks)
    return plain_attention(queries, keys, values, cache, scale, mask, sinks)


def grouped_attention() -> contextlib.AbstractContextManager[None]:
    """mlx-lm's models attend through `GroupedKV` where their cache is one."""
    return attention_through(_grouped_attention)


def can_group(model: Any, caches: Sequence[Any]) -> bool:
    """Whether the model's own code works on `GroupedKV`: tried by building one step that is never computed.

    caches: what mlx-lm makes for the model.
    """
    if any(type(cache) is not KVCache for cache in caches):
        return False
    kv = GroupedKV(len(caches))
    kv.change([], [(row, Prefilled([], 0, 0)) for row in range(2)])
    kv.begin_step()
    try:
        with grouped_attention():
            model(mx.zeros((2, 1), dtype=mx.int32), cache=kv.caches)
    except (NotGrouped, TypeError, AttributeError, ValueError):
        return False
    return True
