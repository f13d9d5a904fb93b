"""The coordinator and its own drawing, against workers that come, go, fall silent, lie or never deliver."""

import io
import socket
import time
from contextlib import redirect_stderr

import pytest

from mlx_ssd.distributed import coordinator, listening, wire
from mlx_ssd.errors import BadInput
from tests.distributed.fake import Peer, Run


def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


def test_alone_it_draws_everything_itself():
    Run(30).start().check()


def test_a_worker_draws_a_part_and_what_it_draws_is_counted_once():
    run = Run(60)
    peer = Peer(run.port, "mac")
    peer.turn(want=40)
    assert [request.key for request in peer.held] == list(range(40))
    run.start()
    peer.deliver(25)
    again = [[0, [9], "stop"], [1, [9], "loop"]]  # delivered before: nobody asks what it says now
    assert not peer.turn(drawn=again)["over"]
    peer.deliver(15)
    run.check()
    assert run.shared.counts == {"mac": 40}


def test_a_worker_that_ends_loses_its_claims_at_once():
    run = Run(40)
    peer = Peer(run.port)
    peer.turn(want=30)
    peer.deliver(5)
    said = io.StringIO()
    with redirect_stderr(said):
        peer.close()
        until(lambda: "handed out again" in said.getvalue())
    assert "what it held, 25, is handed out again" in said.getvalue()
    other = Peer(run.port)
    assert [r.key for r in (other.turn(want=3), other)[1].held] == [5, 6, 7]
    run.start().check()


def test_a_worker_that_is_silent_loses_its_claims_after_seconds(monkeypatch):
    monkeypatch.setattr(coordinator, "LOST_SECONDS", 0.3)
    run = Run(20)
    peer = Peer(run.port)
    peer.turn(want=20)
    start = time.monotonic()
    until(lambda: run.shared._coordinator._claims._free)
    assert 0.2 < time.monotonic() - start < 3
    with pytest.raises(wire.Lost):
        peer.turn()
        peer.turn()
    run.start().check()


def test_what_a_worker_holds_and_never_delivers_is_taken_over():
    """It takes its turns, so it is not lost: an engine that hangs, or a machine ten times as slow."""
    run = Run(40)
    peer = Peer(run.port)
    peer.turn(want=30)
    run.start()
    until(lambda: peer.turn()["over"], 30)
    run.check()
    assert run.shared.counts == {}


def test_an_idle_worker_takes_over_and_the_first_delivery_counts():
    run = Run(20)
    slow, fast = Peer(run.port, "slow"), Peer(run.port, "fast")
    slow.turn(want=20)
    assert not fast.turn(want=9)["requests"], "while it still has work it is given none of others"
    fast.turn(want=9, idle=True)
    assert [request.key for request in fast.held] == list(range(19, 10, -1))
    fast.deliver(9)
    assert sorted(slow.turn()["drop"]) == list(range(11, 20))
    slow.deliver(20)
    run.start().check()
    assert run.shared.counts == {"slow": 11, "fast": 9}


@pytest.mark.parametrize(
    "message",
    [
        {"drawn": [[0, [1], "no"]], "want": 0},
        {"drawn": [[10**6, [1], "stop"]], "want": 0},
        {"drawn": [], "want": -1},
        {"drawn": [], "want": "all"},
        {"drawn": None, "want": 1},
        {"refused": "no memory"},
    ],
)
def test_a_worker_that_says_what_cannot_be_is_sent_away_and_costs_nothing(message):
    run = Run(20)
    peer = Peer(run.port)
    peer.turn(want=10)
    peer.line.send(message)
    with pytest.raises(wire.Lost):
        peer.line.receive()
    run.start().check()


def test_strangers_are_not_let_in_and_do_no_harm():
    run = Run(20)
    said = io.StringIO()
    with redirect_stderr(said):
        for data in (b"GET / HTTP/1.1\r\n\r\n", b'{"nonce": 1, "proof": "00", "name": "x"}\n', b""):
            stranger = socket.create_connection(("127.0.0.1", run.port))
            stranger.sendall(data)
            stranger.close()
        until(lambda: said.getvalue().count("\n") >= 3)
    assert "joined" not in said.getvalue()
    run.start().check()


def test_no_more_than_so_many_connections_at_once(monkeypatch):
    monkeypatch.setattr(listening, "CONNECTIONS", 2)
    run = Run(5)
    strangers = [socket.create_connection(("127.0.0.1", run.port)) for _ in range(2)]
    for stranger in strangers:
        assert stranger.recv(1)
    third = socket.create_connection(("127.0.0.1", run.port))
    third.settimeout(5)
    assert third.recv(1) == b""
    strangers[0].close()
    until(lambda: run.shared._coordinator._listener._places._value)
    assert Peer(run.port).turn(want=1)["requests"]
    run.start().check()


def test_an_address_in_use_is_said():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(BadInput, match="workers cannot be let in at"):
        Run(5, port=taken.getsockname()[1])


def test_the_port_is_free_for_the_next_work_at_once():
    run = Run(10)
    peer = Peer(run.port)
    run.start().check()
    again = Run(10, port=run.port)
    again.start().check()
    peer.close()
