"""A configuration's model in a process of its own, which does one thing at a time when it is asked to."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from mlx_ssd import machine
from mlx_ssd.bench.configurations import Configuration
from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.supervision.causes import cause_of
from mlx_ssd.supervision.watch import End


class Worker:
    def __init__(self, configuration: Configuration, process: subprocess.Popen[str]):
        self.configuration = configuration
        self._process = process

    def ask(self, request: str) -> dict[str, Any]:
        """Raises BadInput or WorkFailed with what the process said, or what ended it."""
        with contextlib.suppress(BrokenPipeError):  # it is dead; what it died of is told below
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            code = self._process.wait()
            name = self.configuration.subject.name
            ended = cause_of(End(code), None).words if code < 0 else f"ended with exit code {code}"
            raise WorkFailed(f"the process that measured {name} {ended}")
        facts = json.loads(answer)
        if "error" in facts:
            raise (BadInput if facts["exit_code"] == BadInput.exit_code else WorkFailed)(facts["error"])
        return facts


@contextlib.contextmanager
def working(configuration: Configuration) -> Iterator[Worker]:
    """A worker, which is gone at the end, whatever the end."""
    subject, load = (json.dumps(asdict(part)) for part in (configuration.subject, configuration.load))
    # -P: no module of the user's current folder may stand in for one of Python's.
    command = [sys.executable, "-P", "-m", "mlx_ssd.bench", subject, load, str(os.getpid())]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=machine.stage_environment(), **pipes)
    try:
        yield Worker(configuration, process)
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()  # it ends by itself, unless it is at work
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.kill()
        process.wait()
        process.stdout.close()
