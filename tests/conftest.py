"""A small finished run of the embedded model, made once for all tests that read one."""

import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest

from mlx_ssd.layout import RunFiles
from mlx_ssd.machine import metal
from mlx_ssd.recipe import Recipe
from mlx_ssd.stages import get, units
from mlx_ssd.storage import remove
from tests import faults

# Small enough for seconds, large enough that every stage has something to be killed in.
SMALL = (
    "--set", "problems.train.limit=40",
    "--set", "problems.validation.limit=10",
    "--set", "problems.test.limit=24",
    "--set", "sample.rows=16",
    "--set", "train.epochs=2",
    "--set", "train.rows_per_step=8",
    "--set", "train.checkpoint_every_steps=4",
    "--set", "evaluate.curve.temperatures=[0.9, 1.2]",
    "--set", "evaluate.curve.samples_per_problem=2",
    "--set", "evaluate.samples_per_problem=2",
    "--set", "evaluate.pass_at=[1, 2]",
    "--set", "evaluate.rows=16",
    "--set", "evaluate.limits.wall_seconds=2",
)  # fmt: skip


def forget(files: RunFiles, *stages: str) -> None:
    """Take a finished run back to where `stages` have not begun: their outputs, and what the manifest says."""
    manifest = json.loads(files.manifest.read_text())
    for unit in units(Recipe.load(files.recipe), files.directory):
        if unit.stage in stages:
            for path in get(unit.stage).outputs(unit.recipe, unit.files):
                remove(path)
            del manifest["stages"][unit.name]
    files.manifest.write_text(json.dumps(manifest))


# Files of a minute and more, the longest first: begun in this order where files are run side by side
# (--no-loadscope-reorder), or one worker ends alone.
LONG = (
    "stand_ins/test_run.py", "sampling/test_engine.py", "stages/test_kill.py", "test_run.py", "test_families.py",
    "benchmarks/test_training_memory.py", "rounds/test_run.py", "distributed/test_training_runs.py",
    "sampling/test_kill.py", "analysis/test_terms.py", "training/test_kill.py", "stages/test_train_faults.py",
    "report/test_report.py", "stages/test_analyze.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    def place(item):
        return next((n for n, name in enumerate(LONG) if item.path.as_posix().endswith(f"/tests/{name}")), len(LONG))

    items.sort(key=place)  # stable


@pytest.fixture(scope="session", autouse=True)
def no_grades_of_earlier_runs():
    """Tests run their programs: the user's own kept grades are neither read nor written."""
    patch = pytest.MonkeyPatch()
    patch.setenv("MLX_SSD_CACHE", "")
    yield
    patch.undo()


@pytest.fixture(scope="session", autouse=True)
def no_metal_is_asked():
    """Plans are of the machines that tests describe, on a Mac too."""
    patch = pytest.MonkeyPatch()
    patch.setattr(metal, "recommended_bytes", lambda: None)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> Path:
    """This process's own copy of a run that one of them makes (pytest-xdist), for the first that needs it."""
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "finished-run"
    with open(f"{shared}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.exists():
            partial = tmp_path_factory.mktemp("runs") / "small"
            finish(partial)
            partial.rename(shared)
    return Path(shutil.copytree(shared, tmp_path_factory.mktemp("runs") / "small"))


def finish(out: Path) -> None:
    """Samples and answers as they are in any batch; training, which draws none, with the BLAS that is quick."""
    bundled = faults.environment("bundled")
    stages = [["sample", str(out)], ["curate", str(out)], ["train", str(out)], ["run", "quickstart", "--out", str(out)]]
    for arguments in stages:
        env = faults.environment() if arguments[0] == "train" else bundled
        process = faults.run(*arguments, *SMALL, env=env)
        assert process.returncode == 0, process.stderr
