"""What a unit has cost is counted over all the processes that worked for it."""

import shutil
import sys
import time
import types

import pytest

from mlx_ssd import cost
from mlx_ssd.cost import counted
from mlx_ssd.layout import RunFiles
from mlx_ssd.storage import read_json, write_json
from tests import faults
from tests.conftest import SMALL


@pytest.fixture
def peaks(monkeypatch):
    """What this process is made to have taken at most."""
    found = {"rss": 500, "mlx": 30}
    monkeypatch.setattr(cost.machine, "peak_rss_bytes", lambda: found["rss"])
    fake = types.SimpleNamespace(get_peak_memory=lambda: found["mlx"])
    monkeypatch.setitem(sys.modules, "mlx.core", fake)
    return found


def test_a_process_that_goes_on_adds_its_own(tmp_path, peaks):
    write_json(tmp_path / "c", {"seconds": 100.0, "processes": 2, "peak_rss_bytes": 400, "peak_mlx_bytes": 40})
    with counted(tmp_path / "c") as so_far:
        time.sleep(0.05)
    found = so_far()
    assert 100.05 <= found.pop("seconds") < 110
    assert found == {"processes": 3, "peak_rss_bytes": 500, "peak_mlx_bytes": 40}


def test_the_first_has_nothing_before_it(tmp_path, peaks, monkeypatch):
    monkeypatch.delitem(sys.modules, "mlx.core")
    with counted(tmp_path / "c") as so_far:
        pass
    assert so_far() == {"seconds": so_far()["seconds"], "processes": 1, "peak_rss_bytes": 500}
    assert read_json(tmp_path / "c")["processes"] == 1


def test_what_else_was_measured_before_is_not_taken_over(tmp_path, peaks):
    """As where a unit was done and its output is lost: the process says anew how many tokens it drew."""
    write_json(tmp_path / "c", {"seconds": 100.0, "tokens": 7})
    with counted(tmp_path / "c") as so_far:
        pass
    assert "tokens" not in so_far() and so_far()["processes"] == 1 and so_far()["seconds"] >= 100


def test_it_is_kept_while_the_body_works_and_when_it_fails(tmp_path, peaks, monkeypatch):
    monkeypatch.setattr(cost, "KEEP_SECONDS", 0.02)
    with pytest.raises(KeyboardInterrupt), counted(tmp_path / "c"):
        deadline = time.monotonic() + 20
        while not (tmp_path / "c").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        first = read_json(tmp_path / "c")
        peaks["rss"] = 900
        while read_json(tmp_path / "c")["peak_rss_bytes"] == 500 and time.monotonic() < deadline:
            time.sleep(0.01)
        kept = read_json(tmp_path / "c")
        raise KeyboardInterrupt
    assert first["peak_rss_bytes"] == 500 and kept["peak_rss_bytes"] == 900
    assert read_json(tmp_path / "c")["seconds"] >= kept["seconds"]


def test_a_disk_that_is_full_is_not_its_to_name(tmp_path, peaks, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cost, "write_json", full)
    with counted(tmp_path / "c") as so_far:
        pass
    assert so_far()["processes"] == 1 and not (tmp_path / "c").exists()


def test_a_lost_output_is_made_again_at_a_cost(finished_run, tmp_path):
    files = RunFiles(tmp_path / "run")
    shutil.copytree(finished_run, files.directory)
    manifest = read_json(files.manifest)
    before = manifest["stages"]["score"]["measured"]
    manifest["stages"]["score"]["failures"] = [{"ended": "was ended by SIGSEGV"}]
    manifest["stages"]["score"]["measured"] = {**before, "seconds": 1000.0}
    write_json(files.manifest, manifest)
    files.scores.unlink()
    assert faults.run("score", str(files.directory), *SMALL).returncode == 0
    entry = read_json(files.manifest)["stages"]["score"]
    assert before["processes"] == 1 and entry["measured"]["processes"] == 2
    assert 1000 < entry["measured"]["seconds"] < 1000 + 10 * faults.TIMEOUT
    assert entry["failures"] == [{"ended": "was ended by SIGSEGV"}]
    assert not list(files.directory.glob(".*.result.json"))
    # With other settings it is another thing, and begins to count anew.
    done = faults.run("score", str(files.directory), *SMALL, "--set", "evaluate.bootstrap_resamples=500")
    entry = read_json(files.manifest)["stages"]["score"]
    assert done.returncode == 0, done.stderr
    assert entry["measured"]["processes"] == 1 and entry["measured"]["seconds"] < 1000 and "failures" not in entry
