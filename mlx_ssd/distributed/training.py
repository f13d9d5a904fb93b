"""Train with the workers that are there: a ring of MLX's own over rank 0 and one process of each of them.

Rank 0 waits a few seconds for workers, sends each the recipe and the rows, and tells all who takes part. MLX's ring has
no time-out, and a group that lost a rank cannot be made anew in its processes: so each worker holds a line to rank 0,
on which both give signs all the time. Where one is lost, rank 0's process ends with RankLost's exit code, its
supervisor starts it again, and it goes on from the checkpoint with the workers that are there then.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_ssd import heartbeat, models
from mlx_ssd.distributed import address, wire
from mlx_ssd.distributed.coordinator import LOST_SECONDS
from mlx_ssd.distributed.listening import Listener, say
from mlx_ssd.errors import RankLost
from mlx_ssd.layout import MAIN, RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.rounds import FIRST
from mlx_ssd.storage import write_atomic

JOIN_SECONDS = 3.0  # in which workers that are there have tried to join
READY_SECONDS = 120.0  # for a worker to have the rows and to know its model
LOADED_SECONDS = 600.0  # for its process to have loaded it
GOODBYE_SECONDS = 5.0  # for the others to end, which wrote nothing
RING_SECONDS = 15  # for the ring to be made, once all have been told
RANK = "MLX_SSD_RANK"  # of a worker's process: its rank, and the folder in which it and the worker meet
LOADED, START = "loaded", "start"  # files in there: the model is loaded; the ring may be made


@contextlib.contextmanager
def ranks(files: RunFiles) -> Iterator[Any]:
    """Who trains together (`mlx_ssd.training.ranks`), called when the model is loaded. Raises RankLost, and ends the
    process in its way where a rank is lost while MLX waits for it."""
    from mlx_ssd.training.ranks import Group, Ranks

    at = address.workers_at()
    if RANK in os.environ:
        yield Group(_join_ring(json.loads(os.environ.pop(RANK))))
    elif at is None or files.number > FIRST:  # a later round's training is made of adapters that workers do not have
        yield Ranks()
    else:
        lead = _Lead(at, files)
        try:
            hosts = lead.gather()
            with tempfile.TemporaryDirectory(prefix="mlx-ssd-") as folder:
                yield Group(_ring(0, hosts, Path(folder))) if hosts else Ranks()
            lead.finished = True
        finally:
            lead.close()


def unit_of(files: RunFiles) -> str:
    return "train" if files.arm == MAIN else f"train.{files.arm}"


def free_port(host: str) -> int:
    """host: an IPv4 address, as MLX's ring has no others."""
    with socket.create_server((host, 0)) as server:
        return server.getsockname()[1]


def _is_ipv4(host: str) -> bool:
    return ":" not in host


def _join_ring(place: dict[str, Any]) -> Any:
    folder = Path(place["folder"])
    write_atomic(folder / LOADED, "")
    while not (folder / START).exists():  # a worker that is lost takes this process with it
        time.sleep(0.05)
    return _ring(place["rank"], place["hosts"], folder)


def _ring(rank: int, hosts: list[list[str]], folder: Path) -> Any:
    import mlx.core as mx

    (folder / "hosts.json").write_text(json.dumps(hosts))
    os.environ |= {"MLX_RANK": str(rank), "MLX_HOSTFILE": str(folder / "hosts.json")}
    # MLX waits for the others without end, and lets no thread of Python's run meanwhile: the system must end it.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(RING_SECONDS)
    try:
        return mx.distributed.init(strict=True, backend="ring")
    except RuntimeError as error:
        raise RankLost(f"the ring of {len(hosts)} ranks could not be made ({error})") from None
    finally:
        signal.alarm(0)


@dataclass
class _Member:
    """A worker that takes part. hosts: its own address for the ring, and rank 0's as it sees it."""

    name: str
    host: str
    rank_0: str
    loaded: bool = False
    told: bool = False  # that all are, and the ring may be made
    done: bool = False


class _Lead:
    """Rank 0's side of the lines. `finished`: from then on workers may go."""

    def __init__(self, at: tuple[str, int], files: RunFiles):
        self._files, self._rows = files, files.rows.read_bytes()
        recipe = Recipe.parse(files.recipe.read_text(encoding="utf-8"), str(files.recipe))
        self._revision = models.locate(recipe.model).revision
        self._members: list[_Member] = []
        self._joining = 0
        self._left_out: set[str] = set()
        self._change = threading.Condition()
        self._hosts: list[list[str]] | None = None  # of the ring, once it is known who takes part
        self._start = self.finished = False
        self._listener = Listener(at, address.secret(), self._serve, lambda: self.finished)

    def gather(self) -> list[list[str]]:
        """Wait for workers: the ring's hosts by rank, none where no worker takes part. Raises RankLost."""
        deadline = time.monotonic() + JOIN_SECONDS
        with self._change:
            self._wait(lambda: False, deadline)
            self._wait(lambda: self._joining == 0, time.monotonic() + READY_SECONDS)
            members = self._members
            if members:
                own = members[0].rank_0
                self._hosts = [[f"{own}:{free_port(own)}"], *([member.host] for member in members)]
            else:
                self._hosts = []
            self._change.notify_all()
            if members:
                say(f"training with {', '.join(member.name for member in members)}: {len(members) + 1} ranks")
                deadline = time.monotonic() + LOADED_SECONDS
                if not self._wait(lambda: all(member.loaded for member in members), deadline):
                    raise RankLost("a worker did not load the model in time")
                self._start = True
                # While the ring is made no thread of Python's runs, and nobody can be told.
                if not self._wait(lambda: all(member.told for member in members), time.monotonic() + LOST_SECONDS):
                    raise RankLost("a worker was lost before the ring was made")
        return self._hosts

    def close(self) -> None:
        """Stop listening; where the training is done, wait until the workers' processes are, too."""
        self._listener.close()
        deadline = time.monotonic() + GOODBYE_SECONDS
        while self.finished and not all(member.done for member in self._members) and time.monotonic() < deadline:
            time.sleep(0.02)

    def _wait(self, condition: Any, deadline: float) -> bool:
        while not condition() and time.monotonic() < deadline:
            self._change.wait(min(0.2, max(deadline - time.monotonic(), 0.01)))
            heartbeat.beat("join", 0, 1)
        return condition()

    def _serve(self, line: wire.Line, name: str, peer: str) -> None:
        """One worker's line: it is given the work, then tells how far it is, turn by turn, until it is done."""
        with self._change:
            if self._hosts is not None:
                return  # too late for this training; it tries again
            if not _is_ipv4(line.addresses()[0]):  # MLX's ring cannot parse the others
                if name not in self._left_out:
                    say(f"worker {name} came over IPv6, over which MLX cannot train: training goes on without it")
                self._left_out.add(name)
                return
            self._joining += 1
        member = None
        try:
            member = self._prepare(line, name)
        finally:
            with self._change:
                self._joining -= 1
                late = self._hosts is not None
                if member and not late:
                    self._members.append(member)
                self._change.notify_all()
        if late:
            return
        try:
            while self._turn(line, member):
                pass
            member.done = True
        except Exception as error:
            with self._change:
                if self._hosts is None:  # the ring is not made yet, and is made without it
                    self._members.remove(member)
                    raise
            if self.finished:
                member.done = True
                return
            say(f"worker {name} {error}; training goes on from the last checkpoint")
            os._exit(RankLost.exit_code)  # the main thread may wait for MLX for ever

    def _prepare(self, line: wire.Line, name: str) -> _Member:
        line.patience = READY_SECONDS
        rows = self._rows
        line.send(
            {
                "train": unit_of(self._files),
                "recipe": self._files.recipe.read_text(encoding="utf-8"),
                "rows": str(self._files.rows.relative_to(self._files.directory)),
                "bytes": len(rows),
                "sha256": hashlib.sha256(rows).hexdigest(),
                "revision": self._revision,
            }
        )
        line.send_file(self._files.rows)
        said = line.receive()
        if "refused" in said:
            raise wire.Lost(f"does not train: {str(said['refused'])[:500]}")
        local, there = line.addresses()
        if type(said.get("port")) is not int:
            raise wire.Lost("took a turn that this version does not understand")
        line.patience = LOST_SECONDS
        return _Member(name, address.words((there, said["port"])), local)

    def _turn(self, line: wire.Line, member: _Member) -> bool:
        said = line.receive()
        if said.get("done"):
            return False
        if "failed" in said:
            raise wire.Lost(f"lost its process ({said['failed']})")
        with self._change:
            member.loaded = member.loaded or said.get("loaded") is True
            self._change.notify_all()
            place = {"rank": self._members.index(member) + 1, "hosts": self._hosts} if self._hosts else {}
            start = self._start
        line.send(place | {"start": start, "over": self.finished})
        with self._change:
            member.told = start
            self._change.notify_all()
        return True

