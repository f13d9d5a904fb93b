"""One process from its start to its end: its signs of life read, its silence judged, its end brought about."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import psutil

from mlx_ssd import heartbeat
from mlx_ssd.errors import SsdError
from mlx_ssd.supervision.bounds import Bounds
from mlx_ssd.supervision.conditions import Conditions

PATIENCE = (2.0, 8.0, 20.0, 30.0)  # seconds after each SIGINT: it may still be starting, or in the middle of a step
LEAVE_SECONDS = 3.0  # for what a killed process started, to end by itself
WORKING = 0.01  # of the time on a processor: below it a process does nothing (one that waits looks up now and then)


@dataclass
class End:
    """How a process ended, and what it had said of itself until then.

    code: as of Popen. hung: seconds of silence after which it was killed. stopped: why it was asked to end.
    attached: whether it came so far that it can say itself what goes wrong. marks: done and total by the label of the
    work, the last one last. budget: bytes that it might take, once it has said so.
    """

    code: int = 0
    interrupted: bool = False
    hung: float | None = None
    stopped: SsdError | None = None
    attached: bool = False
    marks: dict[str, tuple[int, int]] = field(default_factory=dict)
    budget: int | None = None

    def place(self) -> str:
        """Where it was, in words."""
        if not self.marks:
            return "before its work began"
        label, (done, total) = list(self.marks.items())[-1]
        return f"at {label} {done:,} of {total:,}"


def watch(
    command: list[str], environment: Mapping[str, str], lock: int, bounds: Bounds, conditions: Conditions
) -> End:
    """Start a process and wait for its end. Ctrl-C reaches it too (same terminal): it saves and ends, we wait.

    It holds the lock with us: should we alone be killed, nobody else starts before it is gone.
    """
    ours, theirs = os.pipe()
    line = {heartbeat.SUPERVISOR: f"{os.getpid()}:{theirs}"}
    try:
        process = subprocess.Popen(command, env=dict(environment) | line, pass_fds=(lock, theirs))
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    with open(ours, "rb", buffering=0) as pipe:
        watched = _Watch(process, pipe.fileno(), bounds, conditions)
        try:
            return watched.to_its_end()
        except BaseException:  # the disk that we look at is gone, for example
            watched.kill()
            raise


class _Watch:
    def __init__(self, process: subprocess.Popen, pipe: int, bounds: Bounds, conditions: Conditions):
        self._process, self._pipe, self._bounds, self._conditions = process, pipe, bounds, conditions
        self._end, self._partial = End(), b""
        self._open = self._heard = True
        self._silence, self._worked = 0.0, 0.0  # seconds since the last sign; processor seconds until then
        self._asked: int | None = None  # times that it was asked to end
        self._due = time.monotonic() + bounds.check_seconds

    def to_its_end(self) -> End:
        while True:
            try:
                self._listen()
                if self._process.poll() is not None:
                    break
                if time.monotonic() >= self._due:
                    self._look()
            except KeyboardInterrupt:
                if self._end.interrupted:
                    self.kill()
                elif self._asked is None:
                    self._asked, self._due = 0, time.monotonic() + PATIENCE[0]
                self._end.interrupted = True
        while self._open and self._hears(0.0):  # its last words
            pass
        self._end.code = self._process.returncode
        return self._end

    def _listen(self) -> None:
        """Read what it says, until it is time to look or it has closed its end: as a process does that ends."""
        left = max(0.0, self._due - time.monotonic())
        if not self._open:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(left)
            return
        self._hears(left)

    def _hears(self, seconds: float) -> bool:
        """Read once; False where it said nothing for so long."""
        if not select.select([self._pipe], [], [], seconds)[0]:
            return False
        data = os.read(self._pipe, 1 << 16)
        self._open = bool(data)
        *lines, self._partial = (self._partial + data).split(b"\n")
        for text in lines:
            self._take(json.loads(text))
        return True

    def _take(self, said: dict) -> None:
        self._heard = True
        if "attached" in said:
            self._end.attached = True
        elif "budget" in said:
            self._end.budget = said["budget"]
        elif "at" in said:
            self._end.marks.pop(said["at"], None)  # the last one last
            self._end.marks[said["at"]] = said["done"], said["total"]

    def _look(self) -> None:
        late = time.monotonic() - self._due
        self._due = time.monotonic() + self._bounds.check_seconds
        if self._asked is not None:
            self._ask_again()
            return
        self._judge_silence(0.0 if late > self._bounds.check_seconds else self._bounds.check_seconds)
        if self._end.hung is None and (reason := self._conditions.failed()):
            self._end.stopped = reason
            self._asked = 0
            self._ask_again()

    def _judge_silence(self, seconds: float) -> None:
        """After `seconds` more: none where we were stopped ourselves (Ctrl-Z), and it with us."""
        worked = _processor_seconds(self._process.pid)
        if self._heard:
            self._heard, self._silence, self._worked = False, 0.0, worked
            return
        self._silence += seconds
        idle = worked - self._worked < WORKING * self._silence
        if self._silence >= (self._bounds.idle_seconds if idle else self._bounds.busy_seconds):
            self._end.hung = self._silence
            self.kill()

    def _ask_again(self) -> None:
        if self._asked == len(PATIENCE):
            self.kill()
            return
        self._process.send_signal(signal.SIGINT)
        self._due = time.monotonic() + PATIENCE[self._asked]
        self._asked += 1

    def kill(self) -> None:
        """It and what it started: what is stopped, or waits for it, would remain."""
        started = _descendants(self._process.pid)
        self._process.kill()
        _, left = psutil.wait_procs(started, timeout=LEAVE_SECONDS)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()


def _descendants(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


def _processor_seconds(pid: int) -> float:
    """Of a process, of what it started and of what that has left behind."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        for process in (psutil.Process(pid), *_descendants(pid)):
            with contextlib.suppress(psutil.Error):
                total += sum(process.cpu_times()[:4])  # user, system, and both of ended children
    return total
