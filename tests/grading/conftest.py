import os
import tempfile

import pytest

from mlx_ssd.grading import Limits, ProcessSandbox
from mlx_ssd.grading.probe import programs_running

VARIANTS = {
    "whole": {},
    "cold": {"warm": False},
    "no-landlock": {"landlock": False},
    "no-namespaces": {"namespaces": False},
    "bare": {"namespaces": False, "landlock": False},
}


@pytest.fixture
def limits():
    return Limits(wall_seconds=5.0, cpu_seconds=5.0, memory_mb=256, output_kb=64, processes=4)


@pytest.fixture(scope="session")
def sandboxes():
    return {name: ProcessSandbox(**options) for name, options in VARIANTS.items()}


@pytest.fixture(params=["whole", "cold", "bare"])  # the two ends of what a machine may offer, and a fresh interpreter
def sandbox(request, sandboxes):
    return sandboxes[request.param]


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path, monkeypatch):
    """After every test: no directory of a program, and no process of one."""
    homes = tmp_path / "homes"
    homes.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(homes))
    yield
    assert list(homes.iterdir()) == []
    assert not programs_running(os.getpid())
