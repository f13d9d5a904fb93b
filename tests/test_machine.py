"""The environment of the processes that compute, and what the manifest says of the machine."""

from pathlib import Path

from mlx_ssd import machine


def test_openblas_is_preloaded_where_it_is_found(monkeypatch):
    monkeypatch.setattr(machine, "openblas", lambda: Path("/lib/libopenblas.so.0"))
    assert machine.stage_environment({})["LD_PRELOAD"] == "/lib/libopenblas.so.0"
    kept = machine.stage_environment({"LD_PRELOAD": "/lib/other.so:/old/libopenblas.so.0"})
    assert kept["LD_PRELOAD"] == "/lib/libopenblas.so.0:/lib/other.so"


def test_bundled_blas_on_request(monkeypatch):
    monkeypatch.setattr(machine, "openblas", lambda: Path("/lib/libopenblas.so.0"))
    asked = {"MLX_SSD_BLAS": "bundled", "LD_PRELOAD": "/lib/libopenblas.so.0"}
    assert "LD_PRELOAD" not in machine.stage_environment(asked)


def test_without_openblas_the_hint_says_what_to_install(monkeypatch):
    monkeypatch.setattr(machine, "openblas", lambda: None)
    monkeypatch.setattr(machine.sys, "platform", "linux")
    hint = machine.slow_blas_hint()
    assert "apt install libopenblas0-pthread" in hint and "3 to 7 times" in hint
    monkeypatch.setattr(machine.sys, "platform", "darwin")
    assert machine.slow_blas_hint() is None


def test_description_and_versions():
    described = machine.describe()
    assert described["cores"] >= 1 and described["memory_bytes"] > 2**28 and described["chip"]
    assert {"python", "mlx", "mlx-lm", "numpy"} <= set(machine.versions())
    assert machine.peak_rss_bytes() > 1e6
