"""A small quickstart as a command of its own, with all processes that it ever had."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from mlx_ssd.errors import WorkFailed

COMMAND = [sys.executable, "-c", "from mlx_ssd.cli import main; main()"]
TINY = {
    "arms": "[]", "problems.train.limit": 24, "problems.test.limit": 12, "sample.rows": 8, "train.epochs": 1,
    "train.rows_per_step": 2, "train.checkpoint_every_steps": 3, "evaluate.curve": "null",
    "evaluate.samples_per_problem": 2, "evaluate.pass_at": "[1, 2]", "evaluate.rows": 8, "evaluate.workers": 1,
    "evaluate.limits.wall_seconds": 30, "evaluate.bootstrap_resamples": 200,
}  # fmt: skip
GONE_SECONDS = 10.0
TIMEOUT = 600.0


@dataclass
class Command:
    """An mlx-ssd command on a run directory, with all processes that it ever had."""

    process: subprocess.Popen
    log: Path
    family: dict[int, psutil.Process] = field(default_factory=dict)

    @classmethod
    def start(
        cls,
        arguments: Sequence[str],
        log: Path,
        wrap: Callable[[Sequence[str]], Sequence[str]] = lambda command: command,
        **environment: str,
    ) -> Command:
        """On the wheel's own BLAS, and without grades that are kept elsewhere."""
        own = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        own |= {"MLX_SSD_BLAS": "bundled", "MLX_SSD_CACHE": ""} | environment
        with open(log, "w") as file:
            return cls(subprocess.Popen(wrap([*COMMAND, *arguments]), stdout=file, stderr=file, env=own), log)

    def stage(self, name: str) -> psutil.Process | None:
        """The process that computes this stage, while there is one."""
        for process in self.look():
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                if "mlx_ssd.stages" in line and line[line.index("mlx_ssd.stages") + 1].split(".")[0] == name:
                    return process
        return None

    def look(self) -> list[psutil.Process]:
        found = []
        with contextlib.suppress(psutil.Error):
            found = psutil.Process(self.process.pid).children(recursive=True)
        self.family |= {process.pid: process for process in found}
        return found

    def wait(self) -> int:
        deadline = time.monotonic() + TIMEOUT
        while self.process.poll() is None:
            self.look()
            time.sleep(0.1)
            if time.monotonic() > deadline:
                self.process.kill()
                raise WorkFailed(f"the run did not end in {TIMEOUT:.0f} seconds; see {self.log}")
        return self.process.returncode

    def orphans(self) -> int:
        """Processes that are left a while after its end."""
        _, alive = psutil.wait_procs(list(self.family.values()), timeout=GONE_SECONDS)
        return sum(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in alive)

    def said(self, directory: Path) -> list[str]:
        """Its own sentences, the run directory called RUN."""
        lines = self.log.read_text(errors="replace").replace(str(directory), "RUN").splitlines()
        return [line.removeprefix("mlx-ssd: ") for line in lines if line.startswith("mlx-ssd: ")]


def settings(**others: object) -> list[str]:
    return [text for key, value in (TINY | others).items() for text in ("--set", f"{key}={value}")]
