"""Let peers in that know the secret: each is served in a thread of its own. No array library."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable

from mlx_ssd.distributed import wire
from mlx_ssd.distributed.address import words
from mlx_ssd.errors import BadInput

CONNECTIONS = 64  # at one time, so that a stranger cannot exhaust what we have


class Listener:
    """From its making until `close`. Raises BadInput where it cannot listen at `address`.

    serve: is given the line of one who was let in, its name, and where it is. What it raises of Lost or Refused is
    said, with the name, unless `is_over` says that it is of no interest any more.
    """

    def __init__(
        self,
        address: tuple[str, int],
        secret: bytes,
        serve: Callable[[wire.Line, str, str], None],
        is_over: Callable[[], bool],
    ):
        self._secret, self._serve, self._is_over = secret, serve, is_over
        self._places = threading.Semaphore(CONNECTIONS)
        try:
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            self._socket = socket.create_server(address, family=family)
        except OSError as error:
            raise BadInput(
                f"workers cannot be let in at {words(address)} ({error.strerror or error}); choose another address"
            ) from None
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes whoever accepts
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, peer = self._socket.accept()
            except OSError:
                if self._socket.fileno() < 0:
                    return
                time.sleep(0.1)  # no descriptors left, for example
                continue
            if not self._places.acquire(blocking=False):
                connection.close()
                continue
            with contextlib.suppress(OSError):  # macOS refuses it where the other side has gone already
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._admit, args=(connection, words(peer[:2])), daemon=True).start()

    def _admit(self, connection: socket.socket, peer: str) -> None:
        line = wire.Line(connection, wire.COORDINATOR, wire.WORKER)
        who = f"at {peer}"
        try:
            who = wire.admit(line, self._secret)
            self._serve(line, who, peer)
        except (wire.Lost, wire.Refused) as error:
            if not self._is_over():
                say(f"worker {who} {error}")
        finally:
            line.close()
            self._places.release()


def say(text: str) -> None:
    """On a line of its own: progress may be in the middle of one."""
    print(("\n" if sys.stderr.isatty() else "") + f"note: {text}", file=sys.stderr, flush=True)
