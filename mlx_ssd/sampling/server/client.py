"""One question to a server over HTTP, bounded in time and size, whatever it is that answers.

No redirect is followed, so the key goes to the recipe's host alone; no proxy is asked. A connection serves one
question, so one that a server has closed meanwhile is never taken for a fault. The clock of a question is kept by a
timer that cuts its connection: a server that sends a byte now and then is late as well, and what comes late is never
read.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import threading
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from mlx_ssd.errors import BadInput
from mlx_ssd.machine import certificates

KEY = "MLX_SSD_SERVER_KEY"  # the environment variable that holds the key, if the server wants one
CHUNK = 1 << 16
SAID = 200  # characters of a server's own words that are passed on
LONGEST_WAIT = 60.0  # seconds that a server may ask us to wait
OVERLOADED = (408, 425, 429)  # of 4xx: the same question may be answered later


class Fault(Exception):
    """No answer, but perhaps at the next try. `name` is what is counted; `wait`: seconds that the server asked for."""

    def __init__(self, name: str, what: str, wait: float = 0.0):
        super().__init__(what)
        self.name, self.wait = name, wait


class Closed(Exception):
    """The client was closed while, or before, it asked."""


class Client:
    def __init__(self, url: str, seconds: float):
        """url: as `recipe.Server` checks it. seconds: from the first byte of a question to the last of its answer."""
        parts = urlsplit(url)
        self.url, self._seconds = url, seconds
        secure = parts.scheme == "https"
        self._connect: Any = http.client.HTTPConnection
        if secure:
            self._connect = partial(http.client.HTTPSConnection, context=certificates.context())
        self._host, self._port = parts.hostname, parts.port or (443 if secure else 80)
        self._base = parts.path.rstrip("/").removesuffix("/v1")
        self._key = os.environ.get(KEY, "").strip()
        if not self._key.isascii() or not self._key.isprintable():
            raise BadInput(f"{KEY} holds characters that no key has; set it anew")
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False

    def close(self) -> None:
        """Cut every connection; whoever waits for an answer gets Closed."""
        with self._lock:
            self._closed = True
            cut = list(self._open)
        for line in cut:
            _cut(line)

    def get(self, path: str, limit: int = 1 << 22) -> Any:
        return self._ask("GET", path, None, limit)

    def post(self, path: str, body: dict[str, Any], limit: int) -> Any:
        """The answer's JSON. limit: the most bytes it may have. Raises Fault, or BadInput where the server refuses."""
        return self._ask("POST", path, json.dumps(body).encode(), limit)

    def _ask(self, method: str, path: str, body: bytes | None, limit: int) -> Any:
        headers = {"Accept": "application/json", "Connection": "close"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        connection = self._connect(self._host, self._port, timeout=self._seconds)
        late, timer, line = threading.Event(), None, None
        try:
            connection.connect()
            line = connection.sock  # http.client forgets it once it has read the headers
            timer = threading.Timer(self._seconds, lambda: (late.set(), _cut(line)))
            timer.daemon = True
            timer.start()
            with self._lock:
                if self._closed:
                    raise Closed
                self._open.add(line)
            connection.request(method, self._base + path, body, headers)
            response = connection.getresponse()
            data = self._read(response, limit)
        except (OSError, http.client.HTTPException) as error:
            if self._closed:
                raise Closed from None
            if late.is_set() or isinstance(error, TimeoutError):
                raise self._late() from None
            if isinstance(error, http.client.IncompleteRead):
                raise Fault("truncated", f"{self.url} broke its answer off") from None
            reason = self._clean(getattr(error, "strerror", None) or str(error) or type(error).__name__)
            raise Fault("connection", f"{self.url} cannot be reached ({reason})") from None
        finally:
            if timer:
                timer.cancel()
            with self._lock:
                self._open.discard(line)
            connection.close()
        if self._closed:
            raise Closed
        if late.is_set():
            raise self._late()
        return self._judged(path, response, data)

    def _late(self) -> Fault:
        return Fault("time-out", f"{self.url} gave no whole answer in {self._seconds:g} seconds")

    def _read(self, response: http.client.HTTPResponse, limit: int) -> bytes:
        declared = response.length
        parts, size = [], 0
        while size <= limit and (part := response.read1(CHUNK)):
            parts.append(part)
            size += len(part)
        if size > limit:
            raise Fault("too long", f"{self.url} answers with more than {limit:,} bytes")
        if declared is not None and size < declared:
            raise Fault("truncated", f"{self.url} broke its answer off")
        return b"".join(parts)

    def _judged(self, path: str, response: http.client.HTTPResponse, data: bytes) -> Any:
        status = response.status
        if 200 <= status < 300:
            try:
                return json.loads(data)
            except (ValueError, RecursionError):
                said = self._clean(data)
                raise Fault("malformed", f"{self.url}{path} answers with what is no JSON: {said}") from None
        if status >= 500 or status in OVERLOADED:
            raise Fault(f"status {status}", f"{self.url}{path} answers {status}: {self._said(data)}", _wait(response))
        if 300 <= status < 400:
            raise BadInput(f"{self.url}{path} redirects elsewhere, which is not followed; give the address itself")
        mend = f"; set {KEY} to its key" if status in (401, 403) else ""
        raise BadInput(f"{self.url}{path} refuses with {status}: {self._said(data)}{mend}")

    def _said(self, data: bytes) -> str:
        """A server's own words for what is wrong."""
        said: Any = data
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(data)
            for name in ("error", "message", "detail", "object"):
                found = found.get(name, found) if isinstance(found, dict) else found
            said = found
        return self._clean(said)

    def _clean(self, words: Any) -> str:
        """On one line, short, and without the key, which a server might echo."""
        text = words[: 4 * SAID].decode("utf-8", "replace") if isinstance(words, bytes) else str(words)
        text = text.replace(self._key, "***") if self._key else text
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return (text[:SAID] + "…" if len(text) > SAID else text) or "no word"


def _cut(line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)


def _wait(response: http.client.HTTPResponse) -> float:
    try:
        return min(max(float(response.headers.get("Retry-After", 0)), 0.0), LONGEST_WAIT)
    except ValueError:  # a date
        return 0.0
