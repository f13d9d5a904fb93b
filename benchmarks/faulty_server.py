"""A server that fails as servers do: errors, stalls, broken connections, answers cut short or of the wrong shape.

Which question meets which fault is a function of the seed and of how many came before. What it answers otherwise comes
from a backend: `Canned`, which draws nothing and knows vLLM's way of speaking, or `Upstream`, a real server behind it.
"""

from __future__ import annotations

import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = ("500", "503", "stall", "late", "truncated", "closed", "malformed", "garbage")

# (path, body; None: a GET) -> (status, body of the answer)
Backend = Callable[[str, bytes | None], tuple[int, bytes]]


@dataclass(frozen=True)
class Canned:
    """vLLM as far as the way it speaks goes. Its tokens are a hash of prompt and seed: of the prompt alone where the
    question leaves one token. ignore: settings that it does not heed. seconds_a_token: what an answer takes."""

    end_of_turn: int
    seconds_a_token: float = 0.0
    ignore: Collection[str] = ()
    lengths: tuple[int, int] = (16, 96)
    vocabulary: int = 200

    def __call__(self, path: str, body: bytes | None) -> tuple[int, bytes]:
        if path == "/v1/models":
            return _json({"data": [{"id": "canned", "owned_by": "vllm"}]})
        if path == "/version":
            return _json({"version": "0.11.0"})
        if path != "/v1/completions" or body is None:
            return 404, b"{}"
        asked = {k: v for k, v in json.loads(body).items() if k not in self.ignore}
        greedy = asked.get("temperature", 1) == 0 or asked.get("top_k") == 1 or asked.get("top_p", 1) <= 0.01
        seed = asked.get("seed", 0 if "seed" not in self.ignore else time.monotonic_ns())
        draw = random.Random(json.dumps([asked["prompt"], None if greedy else seed]))
        ids = [draw.randrange(20, self.vocabulary) for _ in range(draw.randint(*self.lengths))]
        most = asked.get("max_tokens", 10**9)
        finish = "stop" if len(ids) < most else "length"
        ids = [*ids, self.end_of_turn] if finish == "stop" else ids[:most]
        time.sleep(len(ids) * self.seconds_a_token)
        choice: dict[str, Any] = {"index": 0, "text": "…", "finish_reason": finish, "token_ids": ids}
        usage = {"prompt_tokens": len(asked["prompt"]), "completion_tokens": len(ids)}
        return _json({"model": asked["model"], "choices": [choice], "usage": usage})


@dataclass(frozen=True)
class Upstream:
    """A real server at `url`."""

    url: str

    def __call__(self, path: str, body: bytes | None) -> tuple[int, bytes]:
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


class FaultyServer:
    """While its context lasts, a server at `url`. share: of the questions that meet a fault, once `armed`;
    `faults` counts them, `questions` all."""

    def __init__(
        self, backend: Backend, share: float = 0.0, kinds: Collection[str] = FAULTS, seed: int = 0, stall: float = 60.0
    ):
        self.faults: Counter[str] = Counter()
        self.questions = 0
        self.seen: list[tuple[str, dict[str, str], Any]] = []  # path, headers, body of every question
        self.armed = True
        self._backend, self._share, self._kinds, self._stall = backend, share, tuple(kinds), stall
        self._random, self._lock, self._end = random.Random(seed), threading.Lock(), threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                owner._serve(self, None)

            def do_POST(self) -> None:
                owner._serve(self, self.rfile.read(int(self.headers.get("Content-Length", 0))))

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: Any) -> None:
                """A client that has gone is what is expected here."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FaultyServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._end.set()
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler, body: bytes | None) -> None:
        with self._lock:
            fault = None
            if body is not None:
                self.questions += 1
                self.seen.append((handler.path, dict(handler.headers), json.loads(body)))
                if self.armed and self._random.random() < self._share:
                    fault = self._random.choice(self._kinds)
                    self.faults[fault] += 1
        handler.close_connection = True
        if fault == "closed":
            return
        if fault == "stall":
            self._end.wait(self._stall)
            return
        if fault in ("500", "503"):
            _send(handler, int(fault), b'{"error": {"message": "out of order"}}')
        elif fault == "malformed":
            _send(handler, 200, b'{"object": "text_completion", "choices": []}')
        elif fault == "garbage":
            _send(handler, 200, b"<html>upstream timed out</html>")
        else:
            status, data = self._backend(handler.path, body)
            if fault == "late":
                self._end.wait(self._stall)
            _send(handler, status, data, len(data) // 2 if fault == "truncated" else None)


def _send(handler: BaseHTTPRequestHandler, status: int, data: bytes, cut: int | None = None) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[:cut])
    handler.wfile.flush()


def _json(value: Any) -> tuple[int, bytes]:
    return 200, json.dumps(value).encode()
