"""Killed at any moment and run again, a training ends in the same bytes as one that was never killed."""

import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlx_ssd.storage import atomic_directory
from mlx_ssd.training.loop import train
from tests import faults

from .tiny import Settings, make_rows, tiny_model
from .train_child import STEPS, train_here

KILLS = {"tokens": 14, "distribution": 6}
TOUCHES_FILES = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}


def snapshot(directory):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}



@pytest.mark.slow
@pytest.mark.parametrize("targets", ["tokens", "distribution"])
def test_twenty_kills_between_them(tmp_path, targets):
    def run(directory):
        """The steps that it makes."""
        steps = tmp_path / "steps"
        assert faults.Forked(train_here, directory, targets, steps).wait() == 0
        return steps.read_text().split()

    assert len(run(tmp_path / "whole")) == STEPS
    whole, log = snapshot(tmp_path / "whole"), tmp_path / "killed" / "train_log.jsonl"
    hit = faults.kill(
        lambda: faults.Forked(train_here, tmp_path / "killed", targets),
        lambda: log.stat().st_size if log.exists() else 0,
        len(whole[Path("train_log.jsonl")]),
        kills=KILLS[targets],
        seed=0,
        own_work=True,
    )
    assert hit >= 0.9 * KILLS[targets], "the kills must hit a process at work"
    first_step = int(run(tmp_path / "killed")[0])
    assert first_step > 1, "no resume took place"
    assert snapshot(tmp_path / "killed") == whole


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
