"""Many questions at a time, each until it is answered once: bounded concurrency, retries with backoff.

A question belongs to one thread, which asks again only after its last try has ended and its connection is closed. So
there is one answer to each, and none that comes late. The threads are daemons: nothing waits for a server at exit.
"""

from __future__ import annotations

import queue
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from mlx_ssd.errors import WorkFailed
from mlx_ssd.sampling.server.client import Client, Closed, Fault

FIRST_WAIT, LONGEST_WAIT = 0.25, 30.0  # seconds before a question is asked again: the first, doubled, at the most
LOOK_UP = 1.0  # seconds between two signs of life while there is no answer

K = TypeVar("K")


class Asking:
    def __init__(self, client: Client, concurrency: int, retries: int):
        self.faults: Counter[str] = Counter()  # by name, those that were mended by another try included
        self._client, self._concurrency, self._retries = client, concurrency, retries
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Cut what is being asked; nothing is asked any more."""
        self._stopped.set()
        self._client.close()

    def until_answered(self, call: Callable[[], Any]) -> Any:
        """`call`, again after a Fault. Raises WorkFailed when it has been tried often enough, Closed when stopped."""
        for tried in range(self._retries + 1):
            try:
                return call()
            except Fault as fault:
                with self._lock:
                    self.faults[fault.name] += 1
                if tried == self._retries:
                    raise WorkFailed(
                        f"{fault}; {tried + 1} tries, then given up: look after the server, then run the same command "
                        "again, what was drawn is kept"
                    ) from None
                wait = min(FIRST_WAIT * 2**tried, LONGEST_WAIT) * random.uniform(0.5, 1)  # not all at once
                if self._stopped.wait(max(wait, fault.wait)):
                    raise Closed from None
        raise AssertionError

    def each(
        self, calls: Sequence[tuple[K, Callable[[], Any]]], waiting: Callable[[], None]
    ) -> Iterator[tuple[K, Any]]:
        """(key, answer) of each call, as they come; `waiting` is called now and then in between. What a call raises
        stops all of them and is raised here."""
        found: queue.SimpleQueue[tuple[K, Any, BaseException | None]] = queue.SimpleQueue()
        left = iter(calls)

        def work() -> None:
            while not self._stopped.is_set():
                with self._lock:
                    call = next(left, None)
                if call is None:
                    return
                try:
                    found.put((call[0], self.until_answered(call[1]), None))
                except BaseException as error:
                    found.put((call[0], None, error))
                    return

        for _ in range(min(self._concurrency, len(calls))):
            threading.Thread(target=work, daemon=True).start()
        try:
            for _ in calls:
                key, answer, error = self._next(found, waiting)
                if error:
                    raise error
                yield key, answer
        except BaseException:
            self.stop()
            raise

    def _next(self, found: queue.SimpleQueue, waiting: Callable[[], None]) -> Any:
        while True:
            try:
                return found.get(timeout=LOOK_UP)
            except queue.Empty:
                waiting()
