"""kill -9 at random moments of each long stage, then resume: the same files as uninterrupted.

Each stage alone is killed oftener, in processes that start quicker: 50 times in tests/sampling, 20 in tests/training
and in tests/suites. MLX_SSD_TEST_KILLS sets how often it is here.
"""

import os
import shutil

import pytest

from mlx_ssd.arms import students
from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.stages import NAMES
from mlx_ssd.storage import hash_path, read_json
from tests import faults
from tests.conftest import SMALL, forget

KILLS = int(os.environ.get("MLX_SSD_TEST_KILLS", "3"))
GROWS = {
    "sample": ["round-1/samples.jsonl"],
    "train": ["round-1/train_log.jsonl", "round-1/arms/*/train_log.jsonl"],
    "evaluate": ["eval/*/*.jsonl"],
}


def journals(directory, *patterns):
    """What stands in the journals: their order means nothing, but nothing may stand twice."""
    found = {}
    for pattern in patterns:
        for path in sorted(directory.glob(pattern)):
            found[str(path.relative_to(directory))] = sorted(path.read_text().splitlines())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("stage", GROWS)
def test_killed_stage_resumes_to_the_same_result(stage, finished_run, tmp_path):
    whole, killed = RunFiles(finished_run), RunFiles(tmp_path / "killed")
    recipe = Recipe.load(whole.recipe)
    shutil.copytree(finished_run, killed.directory)
    forget(killed, *NAMES[NAMES.index(stage) :])

    hit = faults.kill_and_resume(
        [stage, str(killed.directory), *SMALL],
        grows=lambda: faults.size_of(killed.directory, *GROWS[stage]),
        expected_bytes=faults.size_of(whole.directory, *GROWS[stage]),
        kills=KILLS,
        seed=hash_seed(stage),
        env=faults.environment("openblas" if stage == "train" else "bundled"),
    )
    assert hit >= KILLS - 1, "the kills must hit a stage at work"
    units = [entry for name, entry in read_json(killed.manifest)["stages"].items() if name.split(".")[0] == stage]
    assert sum(unit["measured"]["processes"] for unit in units) > len(units)
    if stage == "sample":
        assert journals(killed.directory, "round-1/samples.jsonl") == journals(whole.directory, "round-1/samples.jsonl")
    if stage == "train":
        for one, other in zip(*(students(recipe, files.directory) for files in (killed, whole)), strict=True):
            assert hash_path(one.files.adapter) == hash_path(other.files.adapter)
            assert one.files.training_log.read_text() == other.files.training_log.read_text()
    if stage == "evaluate":
        assert journals(killed.directory, "eval/*/*.jsonl") == journals(whole.directory, "eval/*/*.jsonl")
        assert faults.run("score", str(killed.directory)).returncode == 0
        assert killed.scores.read_text() == whole.scores.read_text()


def hash_seed(stage: str) -> int:
    return sorted(GROWS).index(stage)


@pytest.mark.slow
def test_stage_ends_when_only_the_pipeline_is_killed(finished_run, tmp_path):
    import signal
    import subprocess
    import time

    import psutil

    out = tmp_path / "orphan"
    process = subprocess.Popen(
        [*faults.COMMAND, "sample", str(out), *SMALL], stderr=subprocess.DEVNULL, env=faults.environment()
    )
    deadline = time.monotonic() + 60
    children = []
    while not children and time.monotonic() < deadline:
        children = psutil.Process(process.pid).children()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    gone, alive = psutil.wait_procs(children, timeout=20)
    assert children and not alive
