"""The fault harness, for every stage: kill -9 at random moments, run again, compare with an uninterrupted run.

A moment is a share of the bytes that the uninterrupted run wrote: the process is killed as soon as
the files that grow hold so many. That places kills evenly over the work on any machine, fast or slow.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from click.testing import CliRunner

COMMAND = [sys.executable, "-c", "from mlx_ssd.cli import main; main()"]
TIMEOUT = 900.0


def environment(blas: str = "openblas") -> dict[str, str]:
    """For processes that compute the same bits each time. One thread, for several split OpenBLAS's sums otherwise from
    run to run. "bundled" is the wheel's own BLAS, many times slower, whose results do not depend on the batch either:
    for samples that are drawn again among others, as after a kill."""
    own = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    return own | {"MLX_SSD_BLAS": blas, "OPENBLAS_NUM_THREADS": "1"}


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`mlx-ssd ARGUMENTS` to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        env=env or environment(),
    )


def within(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`mlx-ssd ARGUMENTS` in this process: what is refused, or answered, before any stage is begun. That one is begun
    fails the test."""
    from mlx_ssd import cli, pipeline

    with mock.patch.object(pipeline, "supervise", side_effect=AssertionError("a stage was begun")):
        result = CliRunner().invoke(cli.main, arguments, catch_exceptions=False)
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


class Forked:
    """A function in a process that begins as a copy of one which has imported all it needs (tests/forked.py), with the
    wheel's own BLAS: a start costs a tenth of a new interpreter's. It has Popen's `pid`, `poll` and `wait`."""

    def __init__(self, function: Callable[..., None], *arguments: Any):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.forked"])
        self._process = context.Process(target=_lead, args=(function, *arguments))
        with mock.patch.dict(os.environ, environment("bundled"), clear=True):  # of the copied process, once
            self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join(TIMEOUT)
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()
        self.wait()


def _lead(function: Callable[..., None], *arguments: Any) -> None:
    os.setsid()
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        function(*arguments)


def size_of(directory: Path, *patterns: str) -> int:
    """Bytes in the files under `directory` that match."""
    files = [file for pattern in patterns for file in directory.glob(pattern)]
    return sum(file.stat().st_size for file in files if file.is_file())


def kill_and_resume(
    arguments: Sequence[str],
    grows: Callable[[], int],
    expected_bytes: int,
    kills: int,
    seed: int,
    env: dict[str, str] | None = None,
) -> int:
    """Kill `mlx-ssd ARGUMENTS` and its children `kills` times at random moments, then let it finish.

    Returns how many kills hit a process that was at work (not one that had ended); the caller asserts it.
    """
    command = functools.partial(
        subprocess.Popen,
        [*COMMAND, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=env or environment(),
        start_new_session=True,
    )
    hit = kill(command, grows, expected_bytes, kills, seed)
    finished = run(*arguments, env=env)
    assert finished.returncode == 0, finished.stderr
    return hit


def kill(
    start: Callable[[], subprocess.Popen | Forked],
    grows: Callable[[], int],
    expected_bytes: int,
    kills: int,
    seed: int,
    own_work: bool = False,
) -> int:
    """Start a process, the leader of its session, and kill it, again and again: each time once the files hold a random
    share of `expected_bytes` (with `own_work`, once the process has written something itself, too) and up to 0.05
    seconds later. Returns how many were still running."""
    generator = random.Random(seed)
    hit = 0
    for moment in sorted(generator.random() for _ in range(kills)):
        process = start()
        deadline, before = time.monotonic() + TIMEOUT, grows()
        while process.poll() is None and time.monotonic() < deadline:
            held = grows()
            if held >= moment * expected_bytes and (held > before or not own_work):
                break
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.05))
        hit += process.poll() is None
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself, and has been waited for
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return hit
