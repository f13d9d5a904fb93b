"""Where workers come in: what one that is gone already does to the others."""

import socket
import threading

from mlx_ssd.distributed import listening, wire
from mlx_ssd.distributed.listening import Listener

SECRET = b"0123456789abcdef"


class Gone:
    """Of a connection that the other side has closed: macOS refuses to set an option of it."""

    def __init__(self, connection):
        self._connection = connection

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def setsockopt(self, *_):
        raise OSError(22, "Invalid argument")


def test_one_that_is_gone_before_it_was_greeted_keeps_nobody_out(monkeypatch):
    served, asked = threading.Event(), []
    real = socket.create_server

    class Server:
        def __init__(self, *given, **named):
            self._server = real(*given, **named)

        def __getattr__(self, name):
            return getattr(self._server, name)

        def accept(self):
            connection, peer = self._server.accept()
            asked.append(peer)
            return (Gone(connection) if len(asked) == 1 else connection), peer

    monkeypatch.setattr(listening.socket, "create_server", Server)

    def serve(line, name, peer):
        line.send({"hello": name})
        served.set()

    listener = Listener(("127.0.0.1", 0), SECRET, serve, lambda: False)
    try:
        where = "127.0.0.1", listener.port
        socket.create_connection(where).close()
        line = wire.Line(socket.create_connection(where, timeout=10), wire.WORKER, wire.COORDINATOR)
        assert wire.join(line, SECRET, "mac") == {"hello": "mac"}
        assert served.wait(10) and len(asked) == 2
        line.close()
    finally:
        listener.close()
