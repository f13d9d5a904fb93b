import tempfile

import pytest

from mlx_ssd.grading import Limits, ProcessSandbox
from mlx_ssd.grading.probe import running_homes

VARIANTS = {
    "whole": {},
    "no-namespaces": {"namespaces": False},
    "bare": {"namespaces": False, "landlock": False},
}


@pytest.fixture
def limits():
    return Limits(wall_seconds=5.0, cpu_seconds=5.0, memory_mb=256, output_kb=64, processes=4)


@pytest.fixture(scope="session")
def sandboxes():
    return {name: ProcessSandbox(**options) for name, options in VARIANTS.items()}


@pytest.fixture(params=["whole", "bare"])  # the two ends of what a machine may offer
def sandbox(request, sandboxes):
    return sandboxes[request.param]


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path, monkeypatch):
    """After every test: no directory of a program, and no process that was given one."""
    homes = tmp_path / "homes"
    homes.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(homes))
    yield
    assert list(homes.iterdir()) == []
    assert not [home for home in running_homes() if home.startswith(str(homes))]
