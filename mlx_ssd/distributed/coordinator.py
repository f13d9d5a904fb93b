"""Hand out requests to workers, and take in what they draw. No array library.

Each worker is served by a thread of its own, which answers its turns. A worker takes a turn at least every
TURN_SECONDS; one that has been silent for LOST_SECONDS is lost, as is one whose connection ends, and what it held is
handed out again.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlx_ssd.distributed import jobs, wire
from mlx_ssd.distributed.claims import Claims
from mlx_ssd.distributed.jobs import Job
from mlx_ssd.distributed.listening import Listener, say
from mlx_ssd.sampling.requests import Completed, Request

TURN_SECONDS = 1.0
LOST_SECONDS = 8.0
GOODBYE_SECONDS = 2 * TURN_SECONDS  # in which workers are told that the work is done
MOST_AT_ONCE = 1000  # requests in one turn
LOCAL = ""  # who draws in the coordinator's own process


class Coordinator:
    """Listens from its making until `close`. Raises BadInput where it cannot.

    What workers deliver first stands in `delivered`, as Completed whose key is the number of the request; who draws
    here takes part in the claims with `take` and `deliver`.
    """

    def __init__(
        self,
        address: tuple[str, int],
        secret: bytes,
        job: Job,
        requests: Sequence[Request],
        adapter: Path | None = None,
    ):
        self._job, self._requests, self._adapter = job, requests, adapter
        self._claims, self._lock = Claims(len(requests)), threading.Lock()
        self._bounds = jobs.bounding(requests)
        self._names = itertools.count(1)
        self._workers: set[str] = set()
        self.delivered: queue.SimpleQueue[Completed] = queue.SimpleQueue()
        self.counts: dict[str, int] = {}  # completions that counted, by worker
        self._listener = Listener(address, secret, self._serve, lambda: self.is_over)
        self.port = self._listener.port

    @property
    def is_over(self) -> bool:
        """Whether everything was delivered; what workers drew of it is in `delivered` then."""
        with self._lock:
            return self._claims.left == 0

    @property
    def done(self) -> int:
        return len(self._requests) - self._claims.left

    def take(self, owner: str, count: int, idle: bool) -> list[int]:
        """Numbers of requests to draw; where none is free and the owner is idle, what others hold."""
        with self._lock:
            return self._claims.take(owner, count) or (self._claims.take_over(owner, count) if idle else [])

    def deliver(self, owner: str, number: int) -> bool:
        with self._lock:
            return self._claims.deliver(owner, number)

    def close(self) -> None:
        """Stop listening; where the work is done, let workers take one more turn, so that they know."""
        self._listener.close()
        deadline = time.monotonic() + GOODBYE_SECONDS
        while self.is_over and self._workers and time.monotonic() < deadline:
            time.sleep(0.01)

    def _serve(self, line: wire.Line, name: str, peer: str) -> None:
        owner = f"{name} ({next(self._names)})"
        line.patience = LOST_SECONDS
        line.send(self._job.message(self._bounds))
        for file, _ in self._job.files:
            line.send_file(self._adapter / file)
        say(f"worker {name} at {peer} joined")
        with self._lock:
            self._workers.add(owner)
        lost = ""
        try:
            while self._turn(line, owner, name):
                pass
        except wire.Lost as error:
            lost = str(error)
        finally:  # whatever ended it
            with self._lock:
                self._workers.discard(owner)
                freed = self._claims.give_back(owner)
        if lost:
            raise wire.Lost(f"{lost}; what it held, {freed:,}, is handed out again" if freed else lost)

    def _turn(self, line: wire.Line, owner: str, name: str) -> bool:
        """Take in what a worker has drawn, answer with what is next; whether there will be another turn."""
        said = line.receive()
        if "refused" in said:
            raise wire.Lost(f"cannot help: {str(said['refused'])[:500]}")
        for completed in jobs.completions_of(said.get("drawn"), self._requests):
            with self._lock:
                if self._claims.deliver(owner, completed.key):
                    self.counts[name] = self.counts.get(name, 0) + 1
                    self.delivered.put(completed)
        want = said.get("want")
        if type(want) is not int or want < 0:
            raise wire.Lost("took a turn that this version does not understand")
        numbers = self.take(owner, min(want, MOST_AT_ONCE), said.get("idle") is True) if want else []
        with self._lock:
            stale = self._claims.stale(owner)
        numbered = [(number, self._requests[number]) for number in numbers]
        answer: dict[str, Any] = jobs.requests_message(numbered, self._job.policies)
        over = self.is_over
        line.send(answer | {"drop": stale, "done": self.done, "over": over})
        return not over

