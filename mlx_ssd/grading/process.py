"""A sandbox of processes: each program is a fresh fork of an interpreter that never imported mlx, shut in by what the
system offers.

On Linux such an interpreter, the template, enters namespaces and a root of its own once and forks one program after
another; on macOS, where sandbox-exec takes a whole process, every program gets a template of its own. What the system
does not permit is left out, and `level()` and `describe()` say so: see docs/sandbox.md.
"""

import contextlib
import marshal
import os
import secrets
import sys
import sysconfig
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

from mlx_ssd.errors import WorkFailed
from mlx_ssd.grading import macos
from mlx_ssd.grading.files import compile_whole, remove_tree
from mlx_ssd.grading.running import Running
from mlx_ssd.grading.sandbox import Level, Limits, Outcome
from mlx_ssd.grading.templates import Template, TemplateFailed

NO_PROCESS = 75  # inside/program.py
AHEAD = 2  # runs of a script that are started at a time: the next does not wait until the grader has seen the last
INSIDE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "inside")


class ProcessSandbox:
    """`warm`: templates serve many programs, as far as the system can do it; otherwise each starts an interpreter.
    `namespaces` and `landlock` can be turned off to see what is left where a system has none. For any number of
    threads, each with a template of its own; templates end with this object, or with the process."""

    def __init__(self, warm: bool = True, namespaces: bool = True, landlock: bool = True):
        self.warm = warm and sys.platform == "linux"
        self.namespaces, self.landlock = namespaces, landlock
        self.mark = f"mlx-ssd-{os.getpid()}-{secrets.token_hex(8)}"
        self._python = os.path.realpath(sys.executable)
        self._readable = _interpreter_paths()
        self._lock, self._started = threading.Lock(), 0
        self._idle: list[Template] = []
        weakref.finalize(self, _close_all, self._idle)
        for name in os.listdir(INSIDE):
            if name.endswith(".py"):
                compile_whole(os.path.join(INSIDE, name))

    @contextlib.contextmanager
    def load(self, code: str, entry_point: str, limits: Limits) -> Iterator["Session"]:
        """A program of functions, loaded: each `call(args)` of the context is one call and gives its outcome.

        Outcomes as `Program.call` says. Leaving the context kills the program.
        """
        with self._begin({"code": code, "entry_point": entry_point}, limits) as session:
            yield session

    def call(self, code: str, entry_point: str, calls: Sequence[list], limits: Limits) -> Iterator[Outcome]:
        with self.load(code, entry_point, limits) as session:
            for args in calls:
                outcome = session.call(args)
                yield outcome
                if outcome.status != "ok":
                    return

    def runs(self, code: str, stdins: Sequence[str], limits: Limits) -> Iterator[Outcome]:
        waiting = deque(stdins)
        while waiting:  # once, unless a run left something behind
            with self._begin({"code": code}, limits) as session:
                for outcome in session.runs(waiting):
                    yield outcome
                    if outcome.status != "ok":
                        return

    def run(self, code: str, stdin: str, limits: Limits) -> Outcome:
        with contextlib.closing(self.runs(code, [stdin], limits)) as outcomes:
            return next(outcomes)

    def level(self) -> Level:
        """Which of the levels of docs/sandbox.md holds here, by what the system grants. WorkFailed where nothing can
        be run in it at all."""
        found = self.mechanisms()
        if "failed" in found:
            raise WorkFailed(f"the sandbox does not start here ({found['failed']}); no program can be graded")
        if sys.platform == "darwin":
            return "seatbelt"
        if {"pid", "net"} <= set(found.get("namespaces", [])) and (found.get("root") or found.get("landlock")):
            return "namespaces"
        return "landlock" if found.get("landlock") else "limits"

    def describe(self) -> dict:
        """See `mlx_ssd.grading.probe.probe`. Tried once for each sandbox object, about two seconds."""
        return dict(self._probed)

    def mechanisms(self) -> dict:
        """What the system grants to programs: namespaces, a root and a uid of their own, Landlock's version,
        RLIMIT_AS."""
        try:
            template = self._take()
        except TemplateFailed as error:
            return {"failed": str(error)}
        self._give(template)
        return dict(template.granted)

    @cached_property
    def _probed(self) -> dict:
        from mlx_ssd.grading.probe import probe

        granted = self.mechanisms()
        return probe(self) | ({} if "failed" in granted else {"level": self.level()}) | granted

    @contextlib.contextmanager
    def _begin(self, job: dict, limits: Limits) -> Iterator["Session"]:
        with contextlib.ExitStack() as stack:
            try:
                running = stack.enter_context(self._run(job, limits))
            except TemplateFailed as error:
                yield Session(None, limits, Outcome("harness_error", detail=str(error)))
                return
            yield Session(running, limits)

    @contextlib.contextmanager
    def _run(self, job: dict, limits: Limits) -> Iterator[Running]:
        template = self._take()
        home = template.home
        try:
            if home is None:
                home = "" if template.granted["root"] else _make_home()
            with Running(template, home, job, limits) as running:
                yield running
        finally:
            if home and home != template.home:
                remove_tree(home)
            self._give(template)

    def _give(self, template: Template) -> None:
        if template.reusable:
            with self._lock:
                self._idle.append(template)
        else:
            template.close()

    def _take(self) -> Template:
        with self._lock:
            while self._idle:
                template = self._idle.pop()
                if template.alive():
                    return template
                template.close()
            self._started += 1
            number = self._started
        setup = {
            "readable": self._readable,
            "namespaces": self.namespaces,
            "landlock": self.landlock,
            "uid": 61_200 + (os.getpid() * 16 + number) % 4_000,  # of no user on common systems
            "warm": self.warm,
            "mark": self.mark,
        }
        home = None if self.warm else _make_home()
        return Template(self.command(home), setup, home)

    def command(self, home: str | None) -> list[str]:
        # Not -I: it would also ignore PYTHONHASHSEED, and a verdict could then change from run to run with
        # the order of a set. The environment holds nothing but ours, so -P and -s give the rest of -I.
        flags = ["-P", "-s", "-S", "-B", "-X", "utf8"]
        start = os.path.join(INSIDE, "start.py")
        if sys.platform != "darwin":
            return [self._python, *flags, start]
        # The whole folder: an import looks at what is in it, which is reading it. As a file's true name, too.
        own = os.path.realpath(os.path.dirname(INSIDE))
        prefix = macos.sandbox_exec(macos.interpreters(self._python), [own, *self._readable], home)
        return [*prefix, self._python, *flags, os.path.join(own, "inside", "start.py")]


class Session:
    """A loaded program; see `Sandbox.load`. Wall and processor time are anew for loading, each call and each run."""

    def __init__(self, running: Running | None, limits: Limits, failure: Outcome | None = None):
        self._running, self._limits, self._ended = running, limits, failure
        self._steps = 0

    def call(self, args: list) -> Outcome:
        if self._ended is not None:
            marshal.dumps(args)  # ValueError for what cannot be sent
            return self._ended
        running, step = self._running, self._steps
        self._steps += 1
        running.send(args)
        if step == 0 and not self._loaded():
            return self._ended
        event, payload = running.wait(time.monotonic())
        ours = event == "line" and payload.get("step") == step
        if ours and "value" in payload:
            return Outcome("ok", payload["value"])
        if ours and payload.get("failed") in ("error", "not_json"):
            outcome = running.claimed_failure(payload)
            return replace(outcome, raised=outcome.status == "error")
        self._ended = running.failure(event, payload)
        return self._ended

    def runs(self, stdins: deque[str]) -> Iterator[Outcome]:
        """Of a script. Ends where a run fails or leaves something to the next; `stdins` then holds what was not run."""
        if self._ended is not None or not self._loaded():
            yield self._ended
            return
        started, clean = 0, True
        while stdins and clean:
            while started < min(AHEAD, len(stdins)):
                data = stdins[started].encode("utf-8", "surrogateescape")
                started += 1
                self._running.start(data, last=started == len(stdins))
            outcome, clean = self._run(last=len(stdins) == 1)
            if outcome.status != "ok":
                yield outcome
                return
            stdins.popleft()
            started -= 1
            yield outcome

    def _run(self, last: bool) -> tuple[Outcome, bool]:
        """The outcome of the current run, and whether it left nothing behind."""
        running, step = self._running, self._steps
        self._steps += 1
        event, payload = running.wait(time.monotonic())
        clean = False
        if event == "line" and payload.get("step") == step and isinstance(payload.get("status"), int):
            clean = payload.get("clean") == 1
            event, payload = "ended", running.claimed_end(payload)
        elif event == "ended" and not last:
            if payload.exit_code == NO_PROCESS:
                return Outcome("harness_error", detail="no more processes"), False
            return running.failure(event, payload), False
        if event == "ended" and payload.status == 0 and payload.started:
            output = running.output()
            if output is not None:
                running.next()
                return Outcome("ok", output.decode("utf-8", "replace")), clean
        return running.failure(event, payload), False

    def _loaded(self) -> bool:
        """Whether the program says that it is."""
        event, payload = self._running.wait()
        if event != "line" or payload.get("step") != "loaded":
            self._ended = self._running.failure(event, payload)
        return self._ended is None


def _make_home() -> str:
    return os.path.realpath(tempfile.mkdtemp(prefix="mlx-ssd-"))


def _close_all(templates: list[Template]) -> None:
    while templates:
        templates.pop().close()


def _interpreter_paths() -> list[str]:
    """What a program may read: the standard library, what that is linked with, time zones."""
    base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}  # not those of a virtual environment
    paths = [sysconfig.get_path(name, vars=base) for name in ("stdlib", "platstdlib")]
    paths += [os.path.join(sys.base_prefix, "lib")]
    paths += ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"]
    paths += ["/usr/share/zoneinfo", "/etc/localtime", "/dev/urandom"]
    found = {path for path in paths if os.path.exists(path)}
    return sorted(found | {os.path.realpath(path) for path in found})
