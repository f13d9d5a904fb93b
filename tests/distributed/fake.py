"""An engine that draws at once what follows from a request alone, and a worker without an engine: no model, no MLX."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from mlx_ssd import models
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.distributed import wire
from mlx_ssd.distributed.jobs import Job, requests_of
from mlx_ssd.distributed.sharing import Sharing
from mlx_ssd.sampling.engines import MLX, Engine
from mlx_ssd.sampling.requests import Completed, Request

SECRET = b"0123456789abcdef"
POLICY = DecodingPolicy(1.6, 20, 0.8)
STEP_SECONDS = 0.002


def requests(count: int) -> list[Request]:
    return [Request((0, f"p{i}", 0), [1, 2, 3 + i % 5], POLICY, (i, 7), 100) for i in range(count)]


def answer(request: Request) -> list[int]:
    return [request.random_key[0] + 1] * (1 + request.random_key[0] % 4)


class FakeDecoding:
    """Four rows side by side; a token of each a step."""

    expected_peak = 0.0

    def __init__(self, model, requests, stop_tokens, rows, *, loops=None, memory=None, more=None):
        self._more = more
        self.drawn: list = []

    def run(self, on_tokens) -> Iterator[Completed]:
        rows: list[list] = []
        while True:
            while len(rows) < 4:
                found = self._more(not rows)
                if not found:
                    break
                rows += [[request, 0] for request in found]
            if not rows:
                return
            time.sleep(STEP_SECONDS)
            on_tokens(len(rows))
            for row in rows:
                row[1] += 1
            for row in [row for row in rows if row[1] >= len(answer(row[0]))]:
                rows.remove(row)
                self.drawn.append(row[0].key)
                yield Completed(row[0].key, answer(row[0]), "stop")


ENGINE = Engine(MLX, lambda *_: (None, None), FakeDecoding, lambda: 10**9)


def model(revision: str = "r", adapter: Path | None = None) -> SimpleNamespace:
    source = models.ModelSource(Path("nowhere"), revision, "embedded")
    return SimpleNamespace(_origin=models.Origin(source, "float32", adapter))


class Run:
    """A coordinator with the fake engine, in a thread: `result()` is what it drew, by key, each counted."""

    def __init__(self, count: int, port: int = 0, revision: str = "r", adapter: Path | None = None):
        self.kept: list[Completed] = []
        self.requests = requests(count)
        self.shared = Sharing(("127.0.0.1", port), SECRET).decoding(
            ENGINE,
            model(revision, adapter),
            self.requests,
            {0},
            8,
            loops=None,
            memory=None,
            label="sample",
            keep=self.kept.append,
        )
        self.port = self.shared._coordinator.port
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> Run:
        self._thread.start()
        return self

    def _run(self) -> None:
        for completed in self.shared.run(lambda _: None):
            self.kept.append(completed)

    def check(self) -> None:
        """Ended, and every request was drawn once, as it must be."""
        self._thread.join(30)
        assert not self._thread.is_alive(), "it hangs"
        assert sorted(c.key for c in self.kept) == sorted(r.key for r in self.requests)
        of = {request.key: request for request in self.requests}
        assert all(c.completion_ids == answer(of[c.key]) for c in self.kept)


class Peer:
    """A worker's line, every turn taken by hand."""

    def __init__(self, port: int, name: str = "peer"):
        self._socket = socket.create_connection(("127.0.0.1", port))
        self.line = wire.Line(self._socket, wire.WORKER, wire.COORDINATOR)
        self.job, _ = Job.of(wire.join(self.line, SECRET, name))
        self.held: list[Request] = []

    def turn(self, want: int = 0, idle: bool = False, drawn: list | None = None) -> dict:
        self.line.send({"drawn": drawn or [], "want": want, "idle": idle})
        answered = self.line.receive()
        self.held += requests_of(answered, self.job.policies)
        return answered

    def deliver(self, count: int) -> dict:
        some, self.held = self.held[:count], self.held[count:]
        return self.turn(drawn=[[request.key, answer(request), "stop"] for request in some])

    def close(self) -> None:
        self.line.close()
