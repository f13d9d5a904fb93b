"""The environment of the processes that compute, what the manifest says of the machine, and what bounds its memory."""

import ssl
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from mlx_ssd import heartbeat, machine
from mlx_ssd.machine import memory, power
from mlx_ssd.machine.working_set import keep_mlx_within, working_set


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


WATCHED = """
import importlib, os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "mlx.core":
            print("MLX_ENABLE_TF32 is", os.environ.get("MLX_ENABLE_TF32"))

sys.meta_path.insert(0, Watch())
importlib.import_module(sys.argv[1])
import mlx.core
"""


@pytest.mark.parametrize("process", ["export", "parity"])
def test_what_is_compared_in_float32_is_computed_in_float32(process):
    command = [sys.executable, "-c", WATCHED, f"mlx_ssd.{process}.__main__"]
    environment = machine.stage_environment({"PATH": "", "MLX_ENABLE_TF32": "1"})
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.stdout.splitlines() == ["MLX_ENABLE_TF32 is 0"], done.stderr


def test_description_and_versions():
    described = machine.describe()
    assert described["cores"] >= 1 and described["memory_bytes"] > 2**28 and described["chip"]
    assert {"python", "mlx", "mlx-lm", "numpy"} <= set(machine.versions())
    assert machine.peak_rss_bytes() > 1e6


class Groups:
    """A machine's control groups, in a folder."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        monkeypatch.setattr(memory.sys, "platform", "linux")
        monkeypatch.setattr(memory, "CONTROL_GROUPS", folder)
        monkeypatch.setattr(memory, "OWN_GROUPS", folder / "own")
        monkeypatch.setattr(memory, "KERNEL_COUNTERS", folder / "vmstat")
        monkeypatch.setattr(memory, "physical_bytes", lambda: 16_000_000_000)

    def write(self, **files):
        for name, text in files.items():
            path = self.folder / name.replace("__", "/").replace("_DOT_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


@pytest.fixture
def groups(tmp_path, monkeypatch):
    return Groups(tmp_path, monkeypatch)


def test_memory_without_control_groups_is_that_of_the_machine(groups):
    assert memory.limits()["memory"] == 16_000_000_000 and "control group" not in memory.limits()
    assert memory.kills_for_memory() is None
    groups.write(vmstat="pgfault 5\noom_kill 7\n")
    assert memory.kills_for_memory() == 7


def test_a_control_group_of_version_2_or_one_above_it_bounds_the_memory(groups):
    groups.write(own="0::/user/app\n", user__memory_DOT_max="2000000000\n", user__app__memory_DOT_max="max\n")
    assert memory.limits()["control group"] == memory.limit_bytes() == 2_000_000_000
    groups.write(user__app__memory_DOT_max="1000000000\n", user__app__memory_DOT_events="low 0\noom 3\noom_kill 2\n")
    assert memory.limit_bytes() == 1_000_000_000 and memory.kills_for_memory() == 2


def test_a_control_group_of_version_1_bounds_the_memory_where_it_has_a_limit(groups):
    groups.write(own="5:cpu,memory:/a\n0::/\n", memory__a__memory_DOT_limit_in_bytes="9223372036854771712\n")
    assert "control group" not in memory.limits()
    groups.write(memory__memory_DOT_limit_in_bytes="3000000000\n")
    groups.write(memory__memory_DOT_oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 4\n")
    assert memory.limit_bytes() == 3_000_000_000 and memory.kills_for_memory() == 4


def test_in_a_container_its_own_group_is_mounted_as_the_root(groups):
    groups.write(own="0::/of/the/host\n", memory_DOT_max="700000000\n")
    assert memory.limit_bytes() == 700_000_000


def test_an_address_space_bounds_the_memory():
    code = "from mlx_ssd.machine import memory; print(memory.limits()['address space'])"
    command = ["sh", "-c", 'ulimit -v 4000000; exec "$@"', "sh", sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == str(4_000_000 * 1024)


def test_the_working_set_is_of_what_bounds_the_process(monkeypatch):
    import mlx.core as mx

    monkeypatch.setattr(memory, "limit_bytes", lambda: 10_000_000_000)
    monkeypatch.setattr(sys, "platform", "linux")
    assert working_set() == 5_850_000_000
    monkeypatch.setattr(sys, "platform", "darwin")
    for recommended, expected in ((8_000_000_000, 7_200_000_000), (12_000_000_000, 9_000_000_000)):
        described = {"max_recommended_working_set_size": recommended}
        monkeypatch.setattr(mx, "device_info", lambda described=described: described)
        assert working_set() == expected


@pytest.mark.parametrize(
    "metal, cap, most", [(False, None, 5_850_000_000), (True, None, 5_850_000_000), (True, 4_000_000, 4_000_000)]
)
def test_mlx_is_kept_below_the_working_set(monkeypatch, metal, cap, most):
    import mlx.core as mx

    given = {}
    monkeypatch.setattr(memory, "limit_bytes", lambda: 10_000_000_000)
    monkeypatch.setattr(heartbeat, "cap", cap)
    monkeypatch.setattr(mx.metal, "is_available", lambda: metal)
    for name in ("memory", "cache", "wired"):
        monkeypatch.setattr(mx, f"set_{name}_limit", lambda size, name=name: given.update({name: size}))
    monkeypatch.setattr(sys, "platform", "linux")
    keep_mlx_within()
    assert given == {"memory": most, "cache": most // 10} | ({"wired": most} if metal else {})


def test_battery(monkeypatch):
    Battery = namedtuple("Battery", "percent secsleft power_plugged")
    for battery, expected in (
        (None, None), (Battery(80, 9, True), None), (Battery(80, 9, None), None), (Battery(55, 9, False), 55.0),
    ):  # fmt: skip
        monkeypatch.setattr(power.psutil, "sensors_battery", lambda battery=battery: battery, raising=False)
        assert power.on_battery() == expected


def test_a_mac_is_kept_awake_once_and_before_anything_is_downloaded(monkeypatch):
    from mlx_ssd import downloads, pipeline
    from mlx_ssd.recipe import Recipe

    started = []
    monkeypatch.setattr(machine.sys, "platform", "darwin")
    monkeypatch.setattr(machine.subprocess, "Popen", lambda command: started.append(command[0]))
    machine.keep_awake.cache_clear()
    for _ in range(2):
        machine.keep_awake()
    assert started == ["/usr/bin/caffeinate"]

    happened = []
    monkeypatch.setattr(machine, "keep_awake", lambda: happened.append("awake"))

    def locate(model):
        happened.append("download")
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.models, "locate", locate)
    recipe = Recipe.parse("", "r", {"model.path": "some/model"})
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(recipe, "runs/none")
    assert happened == ["awake", "download"]
    assert downloads._asking(True)("Download?") and happened[-1] == "awake"


def test_who_is_trusted_is_known_where_the_system_knows_nobody(monkeypatch):
    from mlx_ssd.machine import certificates

    pytest.importorskip("certifi")
    monkeypatch.setattr(certificates.ssl, "create_default_context", lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    found = certificates.context()
    assert found.cert_store_stats()["x509_ca"] > 50 and found.verify_mode == ssl.CERT_REQUIRED
