"""A line between two processes that share a secret: authenticated JSON lines over TCP, and files. No array library.

Both sides prove that they know the secret before either says anything else (HMAC-SHA256 over both sides' nonces), and
every line after that carries the MAC of its direction, its number and its text. So nobody else can join, or put in,
change, repeat or leave out a line. Nothing is encrypted: who can listen, reads prompts and samples.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import socket
import time
from pathlib import Path
from typing import Any

from mlx_ssd import __version__

PROTOCOL = 1
LINE_BYTES = 32_000_000  # of a line, at the most
GREETING_BYTES = 1000  # of one from somebody who has proved nothing yet
GREETING_SECONDS = 10.0
PIECE = 1 << 20
COORDINATOR, WORKER = "coordinator", "worker"


class Lost(Exception):
    """The other side is gone, silent, or does not keep to the protocol: what it was, in words."""


class Refused(Exception):
    """The other side is there, and it will never do: a sentence."""


class Line:
    """One end of a connection. `ours` and `theirs` are the two roles. Every method raises Lost."""

    def __init__(self, connection: socket.socket, ours: str, theirs: str):
        self._socket, self._ours, self._theirs = connection, ours, theirs
        self._received = bytearray()
        self._key: bytes | None = None
        self._counts = {ours: 0, theirs: 0}
        self.patience = GREETING_SECONDS  # seconds for a whole line to come, or to go

    def send(self, message: dict[str, Any]) -> None:
        text = json.dumps(message, separators=(",", ":")).encode()
        if self._key:
            text = self._mac(self._ours, text) + text
        self._write(text + b"\n")

    def receive(self) -> dict[str, Any]:
        """The other side's next line. Lost also where it has not come after `patience` seconds."""
        most = LINE_BYTES if self._key else GREETING_BYTES
        deadline = time.monotonic() + self.patience
        searched = 0
        while (end := self._received.find(b"\n", searched)) < 0:
            searched = len(self._received)
            if searched > most:
                raise Lost("sent a line that is too long")
            self._read(deadline)
        text = bytes(self._received[:end])
        del self._received[: end + 1]
        if self._key:
            mac, text = text[:64], text[64:]
            if not hmac.compare_digest(mac, self._mac(self._theirs, text)):
                raise Lost("sent a line that was changed on its way")
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise Lost("sent what is no message")
        return message

    def send_file(self, path: Path) -> None:
        with open(path, "rb") as file:
            while piece := file.read(PIECE):
                self._write(piece)

    def receive_file(self, path: Path, size: int) -> None:
        """Not authenticated: its hash must have been in a line."""
        with open(path, "wb") as file:
            while size:
                if not self._received:
                    self._read(time.monotonic() + self.patience)
                piece = bytes(self._received[:size])
                del self._received[: len(piece)]
                file.write(piece)
                size -= len(piece)

    def addresses(self) -> tuple[str, str]:
        """This side's host, and the other's."""
        try:
            return self._socket.getsockname()[0], self._socket.getpeername()[0]
        except OSError as error:
            raise Lost(_words(error)) from None

    def close(self) -> None:
        self._socket.close()

    def agree(self, secret: bytes, nonces: str) -> None:
        """From here on every line carries its MAC."""
        self._key = proof(secret, "session", nonces).encode()

    def _mac(self, role: str, text: bytes) -> bytes:
        number = self._counts[role]
        self._counts[role] += 1
        return hmac.new(self._key, f"{role} {number} ".encode() + text, hashlib.sha256).hexdigest().encode()

    def _write(self, data: bytes) -> None:
        try:
            self._socket.settimeout(self.patience)
            self._socket.sendall(data)
        except OSError as error:
            raise Lost(_words(error)) from None

    def _read(self, deadline: float) -> None:
        try:
            self._socket.settimeout(max(deadline - time.monotonic(), 1e-3))
            data = self._socket.recv(PIECE if self._key else GREETING_BYTES)
        except OSError as error:
            raise Lost(_words(error)) from None
        if not data:
            raise Lost("ended the connection")
        self._received += data


def proof(secret: bytes, role: str, nonces: str) -> str:
    return hmac.new(secret, f"mlx-ssd {PROTOCOL} {role} {nonces}".encode(), hashlib.sha256).hexdigest()


def admit(line: Line, secret: bytes) -> str:
    """The coordinator's side of the greeting: the worker's name. Raises Lost, or Refused, which the worker is told."""
    own = secrets.token_hex(16)
    line.send({"mlx-ssd": PROTOCOL, "nonce": own})
    hello = line.receive()
    nonces = f"{own} {hello.get('nonce')}"
    if not _proved(hello, secret, WORKER, nonces):
        line.send({"refused": "secret"})
        raise Refused("knows another secret, or none")
    line.send({"proof": proof(secret, COORDINATOR, nonces)})
    line.agree(secret, nonces)
    name = str(hello.get("name"))[:64]
    name = "".join(character if character.isprintable() else "?" for character in name)
    about = line.receive()
    if about.get("version") != __version__:
        line.send({"refused": "version", "version": __version__})
        raise Refused(f"{name} runs mlx-ssd {about.get('version')}, this is {__version__}")
    return name


def join(line: Line, secret: bytes, name: str) -> dict[str, Any]:
    """The worker's side of the greeting: the first line that an admitted worker is sent. Raises Lost or Refused."""
    hello = line.receive()
    if hello.get("mlx-ssd") != PROTOCOL:
        raise Refused("is no run of mlx-ssd that this version can work for; install the same version on both machines")
    own = secrets.token_hex(16)
    nonces = f"{hello.get('nonce')} {own}"
    line.send({"nonce": own, "name": name, "proof": proof(secret, WORKER, nonces)})
    answer = line.receive()
    if not _proved(answer, secret, COORDINATOR, nonces):
        raise Refused("knows another secret than this machine: set the same MLX_SSD_SECRET on both")
    line.agree(secret, nonces)
    line.send({"version": __version__})
    first = line.receive()
    if "refused" in first:
        raise Refused(f"runs mlx-ssd {first.get('version')}, this machine {__version__}: install the same on both")
    return first


def _proved(message: dict[str, Any], secret: bytes, role: str, nonces: str) -> bool:
    return hmac.compare_digest(str(message.get("proof")).encode(), proof(secret, role, nonces).encode())


def _words(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "gave no sign of life"
    return f"is not to be reached ({error.strerror or error})"
