"""A worker: joins a run, draws what it claims, delivers, and waits for the run's next work.

The line is kept by a thread of its own, so that turns are taken while the model loads or computes. Where the line is
lost, what was claimed is forgotten, for it is handed out again, and the worker tries to join anew.
"""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from mlx_ssd import heartbeat, models
from mlx_ssd.distributed import jobs, wire
from mlx_ssd.distributed.address import secret, words
from mlx_ssd.distributed.coordinator import LOST_SECONDS, TURN_SECONDS
from mlx_ssd.distributed.jobs import Job
from mlx_ssd.distributed.member import take_part
from mlx_ssd.distributed.training import JOIN_SECONDS
from mlx_ssd.errors import BadInput, RankLost, SsdError, WorkFailed
from mlx_ssd.progress import duration, progress
from mlx_ssd.sampling.engines import MLX, engine_of
from mlx_ssd.sampling.requests import Completed, Request
from mlx_ssd.sections import Model

RETRY_SECONDS = 1.0
PAUSE_SECONDS = 0.05  # between two turns, at the least
EMPTY_SECONDS = 0.2  # where the last brought nothing to an engine that wanted something
KEEP_SECONDS = 60.0  # without work, after which the model is let go
DELIVERED_AT_ONCE = 100
MOST_FAILURES = 2  # of this machine's part in a training: then others train without it


@dataclass(frozen=True)
class Settings:
    """model: a folder to take in place of what the run names. memory_gb: None for what this machine can give. rows:
    None for as many as the run has. wait_seconds: without a run to work for, after which to end. draw_only: take no
    part in trainings."""

    address: tuple[str, int]
    model: str | None
    memory_gb: float | None
    rows: int | None
    wait_seconds: float
    yes: bool
    draw_only: bool = False


class Ended(Exception):
    """The work that was joined is done, or the line to it is lost (`reason`)."""

    def __init__(self, reason: str = ""):
        super().__init__(reason)
        self.reason = reason


class Claimed:
    """What a worker holds of one job: requests that wait, completions to be delivered. The engine's thread uses `more`
    and `add`, the line's thread runs `keep_line`."""

    def __init__(self, line: wire.Line, job: Job, rows: int):
        self._line, self._policies, self._ahead = line, job.policies, max(2, rows // 4)
        self._change = threading.Condition()
        self._waiting: deque[Request] = deque()
        self._drawn: list[Completed] = []
        self._ready = self._idle = False
        self._end: Ended | None = None
        self._refusal = ""
        self.done = 0  # completions of the whole work, by all

    def more(self, idle: bool) -> list[Request]:
        """As the engine asks. Raises Ended."""
        with self._change:
            self._ready, self._idle = True, idle
            self._change.notify_all()
            while idle and not self._waiting and not self._end:
                self._change.wait(TURN_SECONDS)
                heartbeat.beat("work", self.done, self.done + 1)
            self.check()
            self._idle = False
            return [self._waiting.popleft()] if self._waiting else []

    def add(self, completed: Completed) -> None:
        with self._change:
            self._drawn.append(completed)
            self._change.notify_all()

    def refuse(self, sentence: str) -> None:
        """Tell the run that this machine cannot help, and why."""
        with self._change:
            self._refusal = sentence
            self._change.notify_all()
            self._change.wait_for(lambda: self._end, 2 * TURN_SECONDS)

    def check(self) -> None:
        """Raises Ended where it has."""
        if self._end:
            raise self._end

    def keep_line(self) -> None:
        """Take turns until the work is over or the line is lost."""
        try:
            while self._turn():
                pass
            end = Ended()
        except wire.Lost as error:
            end = Ended(str(error))
        self._line.close()
        with self._change:
            self._end = end
            self._change.notify_all()

    def _turn(self) -> bool:
        with self._change:
            drawn, self._drawn = self._drawn[:DELIVERED_AT_ONCE], self._drawn[DELIVERED_AT_ONCE:]
            want = max(self._ahead - len(self._waiting), 0) if self._ready else 0
            said: dict[str, Any] = {"drawn": jobs.completions_message(drawn), "want": want, "idle": self._idle}
            refused = self._refusal  # as it is told now: one that comes while this turn waits is told in the next
            if refused:
                said = {"refused": refused}
        self._line.send(said)
        answer = self._line.receive()
        found = jobs.requests_of(answer, self._policies)
        with self._change:
            stale = set(answer.get("drop", ()))
            self._waiting = deque(request for request in (*self._waiting, *found) if request.key not in stale)
            self.done = answer.get("done", self.done)
            self._change.notify_all()
            if answer.get("over") or refused:
                return False
        time.sleep(PAUSE_SECONDS)
        empty = bool(want and not found)
        with self._change:
            self._change.wait_for(lambda: self._has_news(empty), EMPTY_SECONDS if empty else TURN_SECONDS)
        return True

    def _has_news(self, empty: bool) -> bool:
        """Whether a turn is due. empty: the last brought nothing, so there is no hurry to ask again."""
        wanting = self._ready and not empty and len(self._waiting) < self._ahead
        return bool(self._drawn or self._refusal or wanting)


def work(settings: Settings) -> int:
    """Draw for the runs that let workers in at the address, until none has for `wait_seconds`: how many completions.

    Raises BadInput where this machine cannot do what a run asks, WorkFailed where there never was a run.
    """
    return _Worker(settings).work()


class _Worker:
    def __init__(self, settings: Settings):
        self._settings, self._secret = settings, secret()
        self._held: tuple[Any, Any, Any] | None = None  # what is loaded: of which model, itself, its tokenizer
        self._completions = self._failures = 0
        self._joined = self._waits = False

    def work(self) -> int:
        since = time.monotonic()
        while True:
            try:
                self._once(self._connect())
            except wire.Refused as error:
                raise BadInput(f"{words(self._settings.address)} {error}") from None
            except Ended as end:
                self._say(f"the run {end.reason}; waiting" if end.reason else "that work is done; waiting for more")
                since = time.monotonic()
            except wire.Lost:  # nobody listens there, or who does was lost before there was work
                if not self._joined and not self._waits:
                    self._say(f"waiting for a run that lets workers in at {words(self._settings.address)}")
                    self._waits = True
            waited = time.monotonic() - since
            if waited >= self._settings.wait_seconds:
                break
            if waited >= KEEP_SECONDS:
                self._let_go()
            heartbeat.beat("wait", int(waited), int(self._settings.wait_seconds))
            time.sleep(min(RETRY_SECONDS, self._settings.wait_seconds - waited))
        if not self._joined:
            raise WorkFailed(
                f"no run has let workers in at {words(self._settings.address)} in {duration(waited)}; start one there "
                "with --workers-at, or give --wait"
            )
        return self._completions

    def _connect(self) -> socket.socket:
        try:
            connection = socket.create_connection(self._settings.address, timeout=wire.GREETING_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise wire.Lost(str(error)) from None
        return connection

    def _once(self, connection: socket.socket) -> None:
        """Join, and draw until the work is over. Raises Ended then, Lost where it was lost before it was joined."""
        line = wire.Line(connection, wire.WORKER, wire.COORDINATOR)
        try:
            first = wire.join(line, self._secret, socket.gethostname())
            if "train" in first:
                self._train(line, first)
            line.patience = LOST_SECONDS
            job, bounds = Job.of(first)
            with tempfile.TemporaryDirectory(prefix="mlx-ssd-") as folder:
                jobs.receive_adapter(line, job, Path(folder))
                self._joined = True
                self._say(f"joined: {job.label}")
                rows = self._settings.rows or job.rows
                claimed = Claimed(line, job, rows)
                keeper = threading.Thread(target=claimed.keep_line, daemon=True)
                keeper.start()
                try:
                    self._draw(job, bounds, rows, claimed, Path(folder))
                except SsdError as error:
                    claimed.refuse(str(error))
                    raise
        finally:
            line.close()

    def _train(self, line: wire.Line, first: dict[str, Any]) -> NoReturn:
        """Take part in a training. Raises Ended when it is over, Lost where rank 0 is lost."""
        if self._settings.draw_only or self._failures == MOST_FAILURES:
            why = "it was told to draw only" if self._settings.draw_only else "its last trainings failed"
            line.send({"refused": why})
            time.sleep(JOIN_SECONDS)  # by then they have begun without it
            raise wire.Lost("trains without this machine")
        self._joined = True
        self._say(f"joined: {first['train']}")
        self._let_go()  # the process that trains needs the memory
        try:
            code = take_part(line, first, self._settings.memory_gb, self._model)
        except wire.Lost as error:
            raise Ended(str(error)) from None
        if code not in (0, RankLost.exit_code):
            self._failures += 1
            raise Ended(f"lost this machine's part (exit code {code})")
        raise Ended("lost another rank" if code else "")

    def _draw(self, job: Job, bounds: list[Request], rows: int, claimed: Claimed, folder: Path) -> None:
        model, _ = self._load(job, folder)
        claimed.check()
        engine = engine_of(MLX)
        asked = self._settings.memory_gb
        memory = heartbeat.budget(engine.working_set() if asked is None else int(asked * 1e9))
        decoding = engine.decoding(
            model, bounds, job.stop_tokens, rows, loops=job.loops, memory=memory, more=claimed.more
        )
        with progress(f"work: {job.label}", job.total, claimed.done, "samples") as bar:

            def step(_: int) -> None:
                claimed.check()
                bar.update(claimed.done, f"{self._completions:,} of them here")

            for completed in decoding.run(step):
                self._completions += 1
                claimed.add(completed)

    def _load(self, job: Job, folder: Path) -> tuple[Any, Any]:
        """(model, tokenizer), kept from one job to the next where they are the same."""
        source = models.locate(self._model(Model(path=job.model), job.revision))
        which = (source, job.dtype, job.adapter)
        if not self._held or self._held[0] != which:
            self._let_go()
            self._held = (which, *models.load(source, job.dtype, folder if job.adapter else None))
        return self._held[1:]

    def _model(self, asked: Model, revision: str) -> Model:
        """What is here of a run's model, which must be of that revision. Raises BadInput."""
        path = self._settings.model or asked.path
        asked = asked.model_copy(update={"path": path, "revision": None})
        if path != "embedded" and models.is_hub_name(path):
            asked = asked.model_copy(update={"revision": revision})
            models.confirm_download(asked, (lambda _: True) if self._settings.yes else None)
        found = models.locate(asked).revision
        if found != revision:
            raise BadInput(
                f"the model {path} is another one here ({found}) than the run's ({revision}); "
                "copy the run's folder, and name the copy with --model"
            )
        return asked

    def _let_go(self) -> None:
        if self._held:
            import mlx.core as mx

            self._held = None
            mx.clear_cache()

    def _say(self, text: str) -> None:
        print(f"note: {text}", flush=True)
