"""Killed at any moment and run again, a training ends in the same bytes as one that was never killed."""

import os
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlx_ssd.storage import atomic_directory
from mlx_ssd.training.loop import train

from .tiny import Settings, make_rows, tiny_model

ROOT = Path(__file__).parents[2]
TOUCHES_FILES = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}


def snapshot(directory):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def start(directory, targets):
    # An LD_PRELOADed BLAS may split its sums otherwise from run to run; the bundled one does not.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-m", "tests.training.train_child", str(directory), targets]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["tokens", "distribution"])
def test_sigkill_at_random_moments(tmp_path, targets):
    whole = start(tmp_path / "whole", targets)
    assert (len(whole.communicate()[0].splitlines()), whole.returncode) == (30, 0)

    draw, killed_at = random.Random(0), []
    for _ in range(3):
        child = start(tmp_path / "killed", targets)
        for _ in range(draw.randint(1, 8)):
            step = child.stdout.readline()
        time.sleep(draw.uniform(0, 0.03))  # some steps and a checkpoint fit in
        child.kill()
        child.communicate()
        assert child.returncode == -9, "the training ended before it could be killed"
        killed_at.append(int(step))
    last = start(tmp_path / "killed", targets)
    first_line = int(last.communicate()[0].split()[0])
    assert last.returncode == 0
    assert first_line > 1 and max(killed_at) > 5, "no resume took place"
    assert snapshot(tmp_path / "killed") == snapshot(tmp_path / "whole")


class Died(BaseException):
    """Not an Exception: like a kill, it is caught by nobody."""


budget = None  # file operations left to live; None: immortal


def _count_down(event, _):
    global budget
    if budget is not None and event in TOUCHES_FILES:
        budget -= 1
        if budget < 0:
            raise Died


sys.addaudithook(_count_down)  # Python's own hook, called before each such operation; it cannot be removed


@contextmanager
def lifetime(operations):
    global budget
    budget = operations
    try:
        yield
    finally:
        budget = None


def test_a_folder_is_whole_or_absent_after_death_before_each_file_operation(tmp_path):
    old, new = {Path("a"): b"old", Path("b"): b"old"}, {Path("a"): b"new", Path("b"): b"new"}

    def write(text):
        with atomic_directory(tmp_path / "folder") as partial:
            for name in "ab":
                (partial / name).write_text(text)

    seen, operations, died = [], 0, True
    while died:
        write("old")
        try:
            with lifetime(operations):
                write("new")
            died = False
        except Died:
            operations += 1
        seen.append(snapshot(tmp_path / "folder"))
    assert operations > 10
    assert seen[0] == old and {} in seen and seen[-1] == new
    assert all(state in (old, {}, new) for state in seen)


def test_death_before_every_other_file_operation(tmp_path):
    """Opening, renaming or removing a file may be the last thing done, in saving, rotating, the adapter."""
    settings, rows = Settings(epochs=1, rows_per_step=1, checkpoint_every_steps=1), make_rows(3)

    def run(directory):
        return train(tiny_model(), rows, settings, directory, {})

    run(tmp_path / "whole")
    whole = snapshot(tmp_path / "whole")
    deaths = resumed = 0
    while True:
        directory = tmp_path / str(deaths)
        try:
            with lifetime(2 * deaths):
                run(directory)
            break
        except Died:
            result = run(directory)
            deaths += 1
            resumed += result.resumed_from > 0
            assert result.warnings == (), "a checkpoint was found half written"
            assert snapshot(directory) == whole
    assert deaths > 25 and resumed > 15


def test_death_while_a_damaged_checkpoint_is_replaced(tmp_path):
    settings, rows = Settings(epochs=1, rows_per_step=1, checkpoint_every_steps=1), make_rows(3)
    train(tiny_model(), rows, settings, tmp_path, {})
    whole = snapshot(tmp_path)
    for operations in range(5, 60, 5):
        (tmp_path / "checkpoints" / "step-00000003" / "state.json").write_text("torn")
        try:
            with lifetime(operations):
                train(tiny_model(), rows, settings, tmp_path, {})
        except Died:
            pass
        assert train(tiny_model(), rows, settings, tmp_path, {}).resumed_from >= 2
        assert snapshot(tmp_path) == whole
