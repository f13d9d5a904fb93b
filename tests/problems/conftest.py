"""Reading LiveCodeBench's rows, and processes that talk to a hub of ours or to none."""

import os
import subprocess
import sys
import warnings

import pytest

from mlx_ssd.problems import read_problems
from mlx_ssd.sections import ProblemSource
from tests.problems.contests import write


@pytest.fixture(autouse=True)
def quiet():
    """Every set here is smaller than the paper's."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="LiveCodeBench v")
        yield


@pytest.fixture
def read(tmp_path):
    def read(*rows, **settings):
        file = write(tmp_path / "rows.jsonl", *rows)
        return read_problems(ProblemSource(source="livecodebench", path=str(file), **settings), "test")

    return read


@pytest.fixture
def python(tmp_path):
    """Run code against a hub, or offline, in a process of its own: the hub's address is read at import."""

    def run(code: str, endpoint: str = "") -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": str(int(not endpoint)), "NO_PROXY": "127.0.0.1",
        }  # fmt: skip
        code = (
            "from mlx_ssd.problems import confirm_downloads, read_problems\n"
            "from mlx_ssd.sections import Problems, ProblemSource\n"
            "from mlx_ssd.errors import BadInput\n"
            f"{code}"
        )
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    return run
