"""Draw here, and let workers draw too: in the place of an engine's decoding, with the same interface.

The engine here claims one request at a time, as it has room, and workers claim theirs through the coordinator. All that
is drawn, here and there, is handed on in this one thread, which alone writes the journals.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlx_ssd import models
from mlx_ssd.distributed import address, jobs
from mlx_ssd.distributed.coordinator import LOCAL, Coordinator
from mlx_ssd.errors import BadInput
from mlx_ssd.sampling.engines import MLX, Decoding, Engine
from mlx_ssd.sampling.loops import LoopStop
from mlx_ssd.sampling.requests import Completed, Request
from mlx_ssd.storage import hash_path

WAIT_SECONDS = 0.05  # of an engine with nothing to do, between two looks at what workers delivered


def sharing() -> Sharing | None:
    """How the work of this process is shared, where the environment says so (address.py). Raises BadInput."""
    at = address.workers_at()
    return Sharing(at, address.secret()) if at else None


class _Over(Exception):
    """Everything has been drawn, and what the engine here still draws is not needed."""


@dataclass
class Sharing:
    at: tuple[str, int]
    secret: bytes

    def decoding(
        self,
        engine: Engine,
        model: Any,
        requests: Sequence[Request],
        stop_tokens: set[int],
        rows: int,
        *,
        loops: LoopStop | None,
        memory: int | None,
        label: str,
        keep: Callable[[Completed], None],
    ) -> Shared:
        """As `engine.decoding`. keep: is given, in this thread, what workers have drawn."""
        origin = models.origin(model)
        if engine.name != MLX or origin is None:
            raise BadInput(f"{address.WORKERS_AT}: only what MLX draws is shared with workers; unset it")
        job = jobs.Job(
            label=label,
            model=origin.source.name,
            revision=origin.source.revision,
            dtype=origin.dtype,
            adapter=hash_path(origin.adapter) if origin.adapter else None,
            files=jobs.adapter_files(origin.adapter) if origin.adapter else (),
            policies=tuple(dict.fromkeys(request.policy for request in requests)),
            stop_tokens=tuple(sorted(stop_tokens)),
            loops=loops,
            rows=rows,
            total=len(requests),
        )
        shared = Shared(requests, rows, keep)
        own = engine.decoding(model, requests, stop_tokens, rows, loops=loops, memory=memory, more=shared.more)
        shared.begin(own, Coordinator(self.at, self.secret, job, requests, origin.adapter))
        return shared


class Shared:
    """A Decoding (`sampling.engines`) of what is drawn here and elsewhere."""

    def __init__(self, requests: Sequence[Request], rows: int, keep: Callable[[Completed], None]):
        self._requests, self._rows, self._keep = requests, rows, keep
        self._on_tokens: Callable[[int], None] = lambda _: None

    def begin(self, own: Decoding, coordinator: Coordinator) -> None:
        """own: the decoding here, which asks `more` for what it draws."""
        self._own, self._coordinator = own, coordinator

    @property
    def expected_peak(self) -> float:
        return self._own.expected_peak

    @property
    def counts(self) -> dict[str, int]:
        """Completions that workers have drawn, by their names."""
        return self._coordinator.counts

    def run(self, on_tokens: Callable[[int], None] | None = None) -> Iterator[Completed]:
        self._on_tokens = on_tokens or self._on_tokens
        numbers = {request.key: number for number, request in enumerate(self._requests)}

        def step(drawn: int) -> None:
            self._on_tokens(drawn)
            self._take_in()

        try:
            for completed in self._own.run(step):
                if self._coordinator.deliver(LOCAL, numbers[completed.key]):
                    yield completed
        except _Over:
            pass
        finally:
            self._coordinator.close()
        self._take_in(last=True)

    def more(self, idle: bool) -> list[Request]:
        """What the engine here draws next. Where it is idle it waits for work, or for the end."""
        while True:
            numbers = self._coordinator.take(LOCAL, 1, idle=False)
            if not numbers and idle and not self._coordinator.is_over:
                numbers = self._coordinator.take(LOCAL, self._rows, idle=True)
            if numbers or not idle or self._coordinator.is_over:
                return [self._requests[number] for number in numbers]
            self._take_in(WAIT_SECONDS)

    def _take_in(self, wait: float = 0.0, last: bool = False) -> None:
        """Hand on what workers have delivered. Raises _Over where nothing is left to be drawn, unless `last`."""
        over = self._coordinator.is_over  # before the queue is emptied: what ended it is in there
        while True:
            try:
                completed = self._coordinator.delivered.get(block=wait > 0, timeout=wait)
            except queue.Empty:
                break
            wait = 0.0
            self._on_tokens(len(completed.completion_ids))
            self._keep(replace(completed, key=self._requests[completed.key].key))
        if over and not last:
            raise _Over

