"""`mlx-ssd train` with a worker: the adapter of one rank, and no hang where the worker is killed or stopped."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import mlx.core as mx
import numpy as np
import psutil
import pytest

from mlx_ssd.distributed import address, member
from mlx_ssd.layout import RunFiles
from mlx_ssd.storage import read_json
from tests import faults
from tests.conftest import forget
from tests.distributed.ranks import SECRET, free_port

LIMIT = 300.0  # seconds, far more than it takes
NOTICED = 30.0  # at the most, on a machine that has much else to do


SETTINGS = (
    "--set", "arms=[]", "--set", "problems.train.limit=8", "--set", "train.epochs=15", "--set", "train.rows_per_step=4",
    "--set", "train.checkpoint_every_steps=4",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run up to its adapter, made by one rank."""
    run = tmp_path_factory.mktemp("alone") / "run"
    for stage in ("sample", "curate", "train"):
        done = faults.run(stage, str(run), *SETTINGS)
        assert done.returncode == 0, done.stderr
    return run


@pytest.fixture
def untrained(trained, tmp_path):
    """A copy of that run, up to its rows; and the adapter that one rank made."""
    files = RunFiles(shutil.copytree(trained, tmp_path / "run"))
    forget(files, "train")
    return files, RunFiles(trained).adapter


@contextlib.contextmanager
def both(run):
    """(worker, rank 0) as commands."""
    port = free_port()
    env = faults.environment() | {address.SECRET: SECRET}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    worker = subprocess.Popen([*faults.COMMAND, "work", f"127.0.0.1:{port}"], env=env, **quiet)
    deadline = time.monotonic() + LIMIT
    while len(family(worker)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(2.0)  # it has imported what it needs, and asks every second
    command = [*faults.COMMAND, "train", str(run), *SETTINGS]
    leader = subprocess.Popen(command, env=env | {address.WORKERS_AT: f"127.0.0.1:{port}"}, **quiet)
    try:
        yield worker, leader
    finally:
        for process in [p for command in (worker, leader) for p in reversed(family(command))]:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)
                process.kill()
        worker.wait(), leader.wait()


def family(command):
    with contextlib.suppress(psutil.Error):
        first = psutil.Process(command.pid)
        return [first, *first.children(recursive=True)]
    return []


def its_rank(worker):
    """The process of the worker that trains."""
    with contextlib.suppress(psutil.Error):
        return next((p for p in family(worker) if "mlx_ssd.stages" in p.cmdline()), None)
    return None


def until(condition, seconds=LIMIT):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def same_adapter(files, kept):
    expected, found = (mx.load(str(folder / "adapters.safetensors")) for folder in (kept, files.adapter))
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        difference = np.abs(np.array(array) - np.array(found[name])).max()
        assert difference < 1e-2 * np.abs(np.array(array)).max() + 1e-6, name


def of_training(files):
    return read_json(files.manifest)["stages"]["train"]


def test_two_machines_train_what_one_trains(untrained):
    files, kept = untrained
    with both(files.directory) as (worker, leader):
        assert leader.wait(LIMIT) == 0
        assert worker.poll() is None, "it waits for more work"
    assert of_training(files)["measured"]["ranks"] == 2 and "failures" not in of_training(files)
    same_adapter(files, kept)


def test_a_lost_worker_is_noticed_within_seconds_and_the_training_ends(untrained):
    files, kept = untrained

    def trains_with(worker, least):
        """Wait until both are at work on a step after the `least`."""
        log = files.training_log
        until(lambda: (log.exists() and log.read_bytes().count(b"\n") >= least) or leader.poll() is not None)
        assert leader.poll() is None and its_rank(worker)

    def is_noticed(count):
        until(lambda: len(of_training(files).get("failures", ())) == count, NOTICED)

    with both(files.directory) as (worker, leader):
        trains_with(worker, 5)
        its_rank(worker).kill()
        is_noticed(1)  # and it goes on with a new process of the same worker
        trains_with(worker, 9)
        for process in family(worker):
            process.send_signal(signal.SIGSTOP)
        is_noticed(2)  # and it goes on alone
        assert leader.wait(LIMIT) == 0
    assert [failure["ended"] for failure in of_training(files)["failures"]] == 2 * ["lost another rank"]
    assert "ranks" not in of_training(files)["measured"]
    steps = [json.loads(line)["step"] for line in files.training_log.read_bytes().splitlines()]
    assert steps == list(range(1, 31))
    same_adapter(files, kept)


class Lines:
    """A line to a rank 0 that always answers, and has the ring made once the model is loaded here."""

    def __init__(self):
        self.said = []

    def send(self, message):
        self.said.append(message)

    def receive(self):
        return {"start": {"loaded": True} in self.said}


def test_a_worker_looks_after_its_process(tmp_path):
    line = Lines()
    meets = f"import pathlib, time; time.sleep(0.5); m = pathlib.Path({str(tmp_path)!r}); (m / 'loaded').touch()\n"
    meets += "while not (m / 'start').exists(): time.sleep(0.02)"
    with member._process([sys.executable, "-c", meets], {}) as process:
        assert member._look_after(line, process, tmp_path) == 0
    assert line.said[0] == {"loaded": False} and line.said[-1] == {"done": True}


def test_a_process_that_is_stopped_is_ended_and_rank_0_told(tmp_path):
    line = Lines()
    with member._process(["sleep", "600"], {}) as process:
        os.kill(process.pid, signal.SIGSTOP)
        assert member._look_after(line, process, tmp_path) == -signal.SIGKILL
    assert line.said[-1] == {"failed": "exit code -9"}
