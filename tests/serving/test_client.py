"""The client against servers that mean ill, or are merely broken."""

import socket
import threading
import time

import pytest

from benchmarks.faulty_server import FaultyServer
from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.sampling.server import asking
from mlx_ssd.sampling.server.asking import Asking
from mlx_ssd.sampling.server.client import KEY, Client, Closed, Fault

LIMIT = 10_000


class Raw:
    """Answers every connection with `parts`, `pause` seconds between them."""

    def __init__(self, *parts, pause=0.0):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections, self._parts, self._pause = 0, parts, pause
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        with connection:
            try:
                connection.recv(65536)
                for part in self._parts:
                    connection.sendall(part)
                    time.sleep(self._pause)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):  # or what was not read would reset the line
                    pass
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.close()


def ask(url, seconds=5.0):
    return Client(url, seconds).post("/v1/completions", {}, LIMIT)


def fault(url, seconds=5.0):
    with pytest.raises(Fault) as found:
        ask(url, seconds)
    assert "\n" not in str(found.value)
    return found.value


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + b" " * 20_000,
        b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 20_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4e20\r\n" + b" " * 20_000 + b"\r\n0\r\n\r\n",
    ],
)
def test_an_answer_that_is_too_long_is_not_read(answer):
    with Raw(answer) as server:
        assert "more than 10,000 bytes" in str(fault(server.url))


@pytest.mark.parametrize(
    "answer, name",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[]", "truncated"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n[", "truncated"),
        (b"HTTP/1.1 200 OK\r\n\r\n[1, ", "malformed"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 9_000, "malformed"),
        (b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe", "malformed"),
        (b"", "connection"),
        (b"220 smtp ready\r\n", "connection"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000, "connection"),
    ],
)
def test_half_answers_and_no_http_are_faults(answer, name):
    with Raw(answer) as server:
        assert fault(server.url).name == name


def test_a_server_that_trickles_is_late():
    for parts in ([b"HTTP/1.1 200 OK\r\n"] + [b"X: y\r\n"] * 100, [b"HTTP/1.1 200 OK\r\n\r\n"] + [b" "] * 100):
        with Raw(*parts, pause=0.1) as server:
            start = time.monotonic()
            assert fault(server.url, 0.5).name == "time-out"
            assert time.monotonic() - start < 3


def test_no_redirect_is_followed_and_the_key_goes_nowhere_else(monkeypatch):
    monkeypatch.setenv(KEY, "sesame")
    with Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as other:
        there = f"HTTP/1.1 307 Go\r\nLocation: {other.url}\r\nContent-Length: 0\r\n\r\n".encode()
        with Raw(there) as server, pytest.raises(BadInput, match="redirects elsewhere, which is not followed"):
            ask(server.url)
        assert other.connections == 0


def test_the_key_is_sent_and_never_said(monkeypatch):
    monkeypatch.setenv(KEY, "sesame")
    with FaultyServer(lambda path, body: (401, b'{"error": {"message": "wrong key:\\n sesame"}}')) as server:
        with pytest.raises(BadInput) as error:
            ask(server.url)
    assert server.seen[0][1]["Authorization"] == "Bearer sesame"
    assert str(error.value).endswith(f"refuses with 401: wrong key: ***; set {KEY} to its key")
    with FaultyServer(lambda path, body: (500, b"no sesame here")) as server:
        assert "no *** here" in str(fault(server.url))
    with FaultyServer(lambda path, body: (200, b"<sesame>")) as server:
        assert "<***>" in str(fault(server.url))


def test_a_key_with_a_line_in_it_is_refused(monkeypatch):
    monkeypatch.setenv(KEY, "a\r\nX: y")
    with pytest.raises(BadInput, match="no key has"):
        Client("http://127.0.0.1:1", 1)


@pytest.mark.parametrize("status", [400, 403, 404, 422])
def test_a_refusal_is_final(status):
    with FaultyServer(lambda path, body: (status, b'{"error": "no"}')) as server:
        client = Client(server.url, 5)
        with pytest.raises(BadInput, match=f"refuses with {status}: no"):
            Asking(client, 1, 5).until_answered(lambda: client.post("/x", {}, LIMIT))
        assert server.questions == 1


def test_a_long_story_is_cut_to_one_line():
    with FaultyServer(lambda path, body: (400, b"a\x1b[31m\nb" * 1000)) as server:
        with pytest.raises(BadInput) as error:
            ask(server.url)
    assert len(str(error.value)) < 400 and "\x1b" not in str(error.value)


def test_the_base_may_be_written_with_or_without_v1():
    with FaultyServer(lambda path, body: (200, b"{}")) as server:
        for url in (server.url, f"{server.url}/v1", f"{server.url}/v1/", f"{server.url}/proxied/v1"):
            ask(url)
        assert [path for path, _, _ in server.seen] == ["/v1/completions"] * 3 + ["/proxied/v1/completions"]


def test_a_server_that_is_not_there_is_said_in_one_sentence(monkeypatch):
    monkeypatch.setattr(asking, "FIRST_WAIT", 0.001)
    with Raw() as gone:
        url = gone.url
    client = Client(url, 5)
    with pytest.raises(WorkFailed, match=r"cannot be reached \(Connection refused\); 3 tries, then given up"):
        Asking(client, 1, 2).until_answered(lambda: client.get("/v1/models"))


def test_the_server_may_ask_for_patience(monkeypatch):
    waits = []
    monkeypatch.setattr(asking, "FIRST_WAIT", 0.001)
    answers = [b"HTTP/1.1 429 Later\r\nRetry-After: %s\r\n\r\n" % after for after in (b"7", b"1e9", b"Monday", b"-1")]
    for answer in answers:
        with Raw(answer) as server:
            waits.append(fault(server.url).wait)
    assert waits == [7.0, 60.0, 0.0, 0.0]


def test_closing_cuts_what_waits():
    with Raw(b"HTTP/1.1 200 OK\r\n", pause=30) as server:
        client, found = Client(server.url, 60), []

        def wait():
            try:
                client.get("/")
            except BaseException as error:
                found.append(type(error))

        thread = threading.Thread(target=wait)
        thread.start()
        while not server.connections:
            time.sleep(0.01)
        time.sleep(0.1)
        client.close()
        thread.join(5)
        assert found == [Closed]
        with pytest.raises(Closed):
            client.get("/")
