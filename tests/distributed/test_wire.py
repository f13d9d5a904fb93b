"""Who does not know the secret gets nothing and can do nothing; a line is bounded in size and time."""

import hashlib
import json
import socket
import threading
import time

import pytest

from mlx_ssd.distributed import wire

SECRET = b"0123456789abcdef"


@pytest.fixture
def ends():
    here, there = socket.socketpair()
    coordinator = wire.Line(here, wire.COORDINATOR, wire.WORKER)
    worker = wire.Line(there, wire.WORKER, wire.COORDINATOR)
    yield coordinator, worker
    coordinator.close()
    worker.close()


def aside(function):
    """Run in a thread; what it gave or raised."""
    found = []

    def run():
        try:
            found.append(function())
        except (wire.Lost, wire.Refused) as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result():
        thread.join(10)
        return found[0]

    return result


def greeted(ends):
    coordinator, worker = ends

    def admitted():
        name = wire.admit(coordinator, SECRET)
        coordinator.send({"job": 1})
        return name

    result = aside(admitted)
    assert wire.join(worker, SECRET, "mac\n2") == {"job": 1}
    assert result() == "mac?2"
    return coordinator, worker


def test_both_are_admitted_and_lines_go_both_ways(ends):
    coordinator, worker = greeted(ends)
    for number in range(3):
        worker.send({"n": number})
        assert coordinator.receive() == {"n": number}
        coordinator.send({"m": number})
        assert worker.receive() == {"m": number}


def test_a_worker_with_another_secret_is_refused_and_both_say_so(ends):
    coordinator, worker = ends
    result = aside(lambda: wire.admit(coordinator, SECRET))
    with pytest.raises(wire.Refused, match="same MLX_SSD_SECRET on both"):
        wire.join(worker, b"another secret!!", "w")
    assert isinstance(result(), wire.Refused) and "another secret" in str(result())


def test_a_worker_does_not_work_for_who_does_not_know_the_secret(ends):
    coordinator, worker = ends

    def impostor():
        coordinator.send({"mlx-ssd": wire.PROTOCOL, "nonce": "0"})
        hello = coordinator.receive()
        coordinator.send({"proof": hello["proof"]})  # all that it has: the worker's own proof
        return hello

    result = aside(impostor)
    with pytest.raises(wire.Refused, match="another secret"):
        wire.join(worker, SECRET, "w")
    assert SECRET.decode() not in json.dumps(result())


def test_another_version_is_refused_and_both_say_which(ends, monkeypatch):
    coordinator, worker = ends
    result = aside(lambda: wire.admit(coordinator, SECRET))
    real = worker.send
    monkeypatch.setattr(worker, "send", lambda m: real({"version": "0.0.1"} if "version" in m else m))
    with pytest.raises(wire.Refused, match="install the same on both"):
        wire.join(worker, SECRET, "w")
    assert "runs mlx-ssd 0.0.1" in str(result())


def test_another_protocol_is_refused(ends):
    coordinator, worker = ends
    coordinator.send({"mlx-ssd": wire.PROTOCOL + 1, "nonce": "0"})
    with pytest.raises(wire.Refused, match="install the same version"):
        wire.join(worker, SECRET, "w")


def test_a_proof_is_worth_nothing_a_second_time(ends):
    """What was said in one greeting does not open another: both sides' nonces are in it."""
    coordinator, worker = ends
    result = aside(lambda: wire.admit(coordinator, SECRET))
    old = worker.receive()["nonce"]
    worker.send({"nonce": "1", "name": "w", "proof": wire.proof(SECRET, wire.WORKER, f"{old[:-1]}x 1")})
    assert worker.receive() == {"refused": "secret"} and isinstance(result(), wire.Refused)


@pytest.mark.parametrize("how", ["changed", "put in", "repeated", "left out", "sent back"])
def test_lines_that_somebody_else_had_a_hand_in_are_not_taken(ends, how):
    coordinator, worker = greeted(ends)
    sent = []
    worker._write, real = sent.append, worker._write
    worker.send({"n": 1})
    worker.send({"n": 2})
    first, second = sent
    lines = {
        "changed": [first.replace(b'"n":1', b'"n":7')],
        "put in": [b"0" * 64 + b'{"n":1}\n'],
        "repeated": [first, first],
        "left out": [second],
        "sent back": [],
    }[how]
    if how == "sent back":
        coordinator._write, back = sent.append, coordinator._write
        coordinator.send({"n": 1})
        coordinator._write, lines = back, [sent[-1]]
    for data in lines:
        real(data)
    with pytest.raises(wire.Lost, match="changed on its way"):
        for _ in lines:
            coordinator.receive()


def test_a_stranger_cannot_fill_our_memory_nor_keep_us_waiting(ends):
    coordinator, worker = ends
    worker._write(b"x" * (3 * wire.GREETING_BYTES))
    with pytest.raises(wire.Lost, match="too long"):
        coordinator.receive()
    for data in (b"[1]\n", b"{\n", b"[" * 900 + b"\n", b"\xff\n"):
        here, there = socket.socketpair()
        there.sendall(data)
        with pytest.raises(wire.Lost, match="no message"):
            wire.Line(here, wire.COORDINATOR, wire.WORKER).receive()
        here.close(), there.close()


def test_bytes_that_trickle_do_not_put_the_deadline_off(ends):
    coordinator, worker = ends
    coordinator.patience = 0.3
    stop = threading.Event()

    def trickle():
        while not stop.wait(0.05):
            worker._write(b"x")

    threading.Thread(target=trickle, daemon=True).start()
    start = time.monotonic()
    with pytest.raises(wire.Lost, match="no sign of life"):
        coordinator.receive()
    stop.set()
    assert time.monotonic() - start < 2


def test_a_line_that_is_too_long_ends_it_after_the_greeting_too(ends, monkeypatch):
    coordinator, worker = greeted(ends)
    monkeypatch.setattr(wire, "LINE_BYTES", 5000)
    sent = aside(lambda: worker.send({"n": "x" * 2_000_000}))
    with pytest.raises(wire.Lost, match="too long"):
        coordinator.receive()
    coordinator.close()
    sent()


def test_files_arrive_whole_and_the_lines_after_them(ends, tmp_path):
    coordinator, worker = greeted(ends)
    data = bytes(range(256)) * 20_000
    (tmp_path / "a").write_bytes(data)

    def sent():
        coordinator.send_file(tmp_path / "a")
        coordinator.send({"after": 1})

    aside(sent)
    worker.receive_file(tmp_path / "b", len(data))
    assert hashlib.sha256((tmp_path / "b").read_bytes()).digest() == hashlib.sha256(data).digest()
    assert worker.receive() == {"after": 1}


def test_the_end_of_a_connection_is_said(ends):
    coordinator, worker = greeted(ends)
    worker.close()
    with pytest.raises(wire.Lost, match="ended the connection"):
        coordinator.receive()
