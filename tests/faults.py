"""The fault harness, for every stage: kill -9 at random moments, run again, compare with an uninterrupted run.

A moment is a share of the bytes that the uninterrupted run wrote: the process is killed as soon as
the files that grow hold so many. That places kills evenly over the work on any machine, fast or slow.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

COMMAND = [sys.executable, "-c", "from mlx_ssd.cli import main; main()"]
TIMEOUT = 900.0


def environment(blas: str = "bundled") -> dict[str, str]:
    """Stage processes with the wheel's own BLAS, whose results do not depend on the batch."""
    own = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    return own | {"MLX_SSD_BLAS": blas}


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


def size_of(directory: Path, *patterns: str) -> int:
    """Bytes in the files under `directory` that match."""
    files = [file for pattern in patterns for file in directory.glob(pattern)]
    return sum(file.stat().st_size for file in files if file.is_file())


def kill_and_resume(
    arguments: Sequence[str], grows: Callable[[], int], expected_bytes: int, kills: int, seed: int
) -> int:
    """Kill `mlx-ssd ARGUMENTS` and its children `kills` times at random moments, then let it finish.

    Returns how many kills hit a process that was at work (not one that had ended); the caller asserts it.
    """
    hit = kill([*COMMAND, *arguments], grows, expected_bytes, kills, seed)
    finished = run(*arguments)
    assert finished.returncode == 0, finished.stderr
    return hit


def kill(
    command: Sequence[str],
    grows: Callable[[], int],
    expected_bytes: int,
    kills: int,
    seed: int,
    own_work: bool = False,
) -> int:
    """Start a command and kill it, again and again: each time once the files hold a random share of `expected_bytes`
    (with `own_work`, once the process has written something itself, too) and up to 0.1 seconds later. Returns how many
    were still running."""
    generator = random.Random(seed)
    hit = 0
    for moment in sorted(generator.random() for _ in range(kills)):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(), start_new_session=True
        )
        deadline, before = time.monotonic() + TIMEOUT, grows()
        while process.poll() is None and time.monotonic() < deadline:
            held = grows()
            if held >= moment * expected_bytes and (held > before or not own_work):
                break
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.1))
        hit += process.poll() is None
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself, and has been waited for
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return hit
