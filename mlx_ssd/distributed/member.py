"""A worker's part in a training: a process of its own for the rank, since a ring is made once in a process.

The worker stays on the line with rank 0 and looks after that process, whose end is the worker's word: done, or failed.
It computes in a folder that is thrown away; what counts is written by rank 0.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import psutil

from mlx_ssd import heartbeat, machine
from mlx_ssd.distributed import wire
from mlx_ssd.distributed.coordinator import LOST_SECONDS
from mlx_ssd.distributed.training import LOADED, RANK, READY_SECONDS, START, free_port
from mlx_ssd.errors import SsdError
from mlx_ssd.recipe import Recipe
from mlx_ssd.sections import Model

LOOK_SECONDS = 0.2
ROWS_BYTES = 64_000_000_000


def take_part(
    line: wire.Line, first: dict[str, Any], memory_gb: float | None, model_of: Callable[[Model, str], Model]
) -> int:
    """The exit code of this rank's process: 0, or why it ended. first: what rank 0 sent. model_of: the model to take
    here for a recipe's, of that revision; what it raises is told to rank 0 first. Raises Lost.
    """
    line.patience = READY_SECONDS
    with tempfile.TemporaryDirectory(prefix="mlx-ssd-") as name:
        run, meeting = Path(name) / "run", Path(name) / "meeting"
        meeting.mkdir()
        unit, recipe = _receive(line, first, run)
        try:
            recipe = recipe.model_copy(
                update={
                    "model": model_of(recipe.model, str(first.get("revision"))),
                    "train": recipe.train.model_copy(update={"memory_gb": memory_gb}),
                }
            )
        except SsdError as error:
            line.send({"refused": str(error)})
            raise
        (run / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
        line.send({"port": free_port(line.addresses()[0])})
        line.patience = LOST_SECONDS
        place = _await(line, lambda answer: "rank" in answer)
        place = {"rank": place["rank"], "hosts": place["hosts"], "folder": str(meeting)}
        command = [sys.executable, "-P", "-m", "mlx_ssd.stages", unit, str(run), "--result", str(run / "result.json")]
        with _process(command, place) as process:
            return _look_after(line, process, meeting)


def _receive(line: wire.Line, first: dict[str, Any], run: Path) -> tuple[str, Recipe]:
    unit, rows, size = str(first.get("train")), PurePosixPath(str(first.get("rows"))), first.get("bytes")
    plain = re.fullmatch(r"train(\.[\w-]+)?", unit) and not rows.is_absolute() and ".." not in rows.parts
    if not plain or type(size) is not int or not 0 <= size <= ROWS_BYTES:
        raise wire.Lost("sent a training that this version does not understand")
    (run / rows).parent.mkdir(parents=True)
    line.receive_file(run / rows, size)
    with open(run / rows, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != first.get("sha256"):
            raise wire.Lost("sent other rows than it named")
    return unit, Recipe.parse(str(first.get("recipe")), "the run's recipe")


def _await(line: wire.Line, is_there: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    while True:
        line.send({})
        answer = line.receive()
        if is_there(answer):
            return answer
        heartbeat.beat("work", 0, 1)
        time.sleep(LOOK_SECONDS)


def _look_after(line: wire.Line, process: subprocess.Popen, meeting: Path) -> int:
    while (code := process.poll()) is None:
        if psutil.Process(process.pid).status() == psutil.STATUS_STOPPED:
            process.kill()
        line.send({"loaded": (meeting / LOADED).exists()})
        if line.receive().get("start") and not (meeting / START).exists():
            (meeting / START).touch()
        heartbeat.beat("work", 0, 1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_SECONDS)
    line.send({"failed": f"exit code {code}"} if code else {"done": True})
    return code


@contextlib.contextmanager
def _process(command: list[str], place: dict[str, Any]) -> Iterator[subprocess.Popen]:
    """It ends with this one, however this one ends."""
    ours, theirs = os.pipe()
    environment = machine.stage_environment()
    environment |= {RANK: json.dumps(place), heartbeat.SUPERVISOR: f"{os.getpid()}:{theirs}"}
    if heartbeat.cap is not None:
        environment[heartbeat.MEMORY] = str(heartbeat.cap)
    process = subprocess.Popen(command, env=environment, pass_fds=(theirs,))
    os.close(theirs)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        os.close(ours)
