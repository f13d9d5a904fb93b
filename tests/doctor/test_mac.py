"""What is said of a Mac, by what its own commands answer."""

import json
import subprocess

import pytest

from mlx_ssd.doctor import hardware, power
from tests.doctor.conftest import PMSET

HOT = """CPU_Scheduler_Limit \t= 100
\tCPU_Available_CPUs \t= 8
\tCPU_Speed_Limit \t= 62
"""


def power_mode(line):
    return PMSET.replace("lowpowermode         0", line)


def test_a_mac_that_nothing_is_wrong_with(mac):
    for check, words in (
        (hardware.chip, "Apple M3 Pro, "),
        (hardware.system, "macOS 15.5"),
        (power.power, "not on battery, no Low Power Mode"),
        (power.sleep, "sleeps when idle for 1 min; a run keeps it awake, with the lid open"),
    ):
        found = check()
        assert found.status == "ok" and found.found.startswith(words) and not found.mend
    assert hardware.blas() is None


@pytest.mark.parametrize(
    "check, command, answer, status, found, mend",
    [
        (hardware.chip, "sysctl -n sysctl.proc_translated", "1", "fail", "Rosetta", "arm64 Python"),
        (hardware.system, "sw_vers -productVersion", "13.6.1", "fail", "macOS 13.6.1", "update to macOS 14"),
        (hardware.system, "sw_vers -productVersion", "14.0", "ok", "macOS 14.0", ""),
        (hardware.system, "sw_vers -productVersion", "26", "ok", "macOS 26", ""),
        (power.power, "pmset -g", power_mode("lowpowermode 1"), "warn", "Low", "turn"),
        (power.power, "pmset -g", power_mode("powermode 1"), "warn", "Low", "turn"),
        (power.power, "pmset -g", power_mode("powermode 2"), "ok", "no Low", ""),
        (power.power, "pmset -g therm", HOT, "warn", "62 %", "cool"),
        (power.sleep, "pmset -g", PMSET.replace(" sleep                1", " sleep 0"), "ok", "never", ""),
        (power.sleep, "pmset -g", "", "warn", "not known", "lid open"),
    ],
)  # fmt: skip
def test_what_may_be_wrong_with_one(mac, check, command, answer, status, found, mend):
    mac[command] = answer
    said = check()
    assert said.status == status and found in said.found and mend in said.mend
    assert bool(said.mend) == (status != "ok")


def test_an_intel_mac(mac, monkeypatch):
    monkeypatch.setattr(hardware.platform, "machine", lambda: "x86_64")
    mac["sysctl -n machdep.cpu.brand_string"] = "Intel(R) Core(TM) i7-1068NG7 CPU @ 2.30GHz"
    said = hardware.chip()
    assert said.status == "fail" and "i7-1068NG7" in said.found and "Apple silicon" in said.mend


def test_a_mac_on_battery(mac, monkeypatch):
    monkeypatch.setattr(power, "on_battery", lambda: 71.0)
    said = power.power()
    assert (said.status, said.found) == ("warn", "on battery, 71 %")


def probe(monkeypatch, **outcome):
    def run(command, **options):
        if "raises" in outcome:
            raise outcome["raises"]
        said = (outcome.get("out", ""), outcome.get("err", ""))
        return subprocess.CompletedProcess(command, outcome.get("code", 0), *said)

    monkeypatch.setattr(hardware.subprocess, "run", run)
    return hardware.working_set()


def test_the_recommended_working_set(mac, monkeypatch):
    gpu = json.dumps({"gpu": True, "bytes": 12713115648})
    assert probe(monkeypatch, out=gpu).found == "MLX computes, on the GPU; macOS recommends at most 12.7 GB"
    mac["sysctl -n iogpu.wired_limit_mb"] = "14000"
    assert "iogpu.wired_limit_mb is set to 14000" in probe(monkeypatch, out=gpu).found
    assert probe(monkeypatch, out=json.dumps({"gpu": False, "bytes": None})).status == "fail"


def test_mlx_that_does_not_compute(mac, monkeypatch):
    said = probe(monkeypatch, code=1, err="Traceback …\nImportError: no mlx\n")
    assert said.status == "fail" and said.found.endswith("ImportError: no mlx") and "pip install" in said.mend
    assert "exit code -6" in probe(monkeypatch, code=-6).found
    assert probe(monkeypatch, raises=subprocess.TimeoutExpired("python", 2)).status == "warn"


@pytest.mark.mac
@pytest.mark.skipif(hardware.sys.platform != "darwin", reason="asks a Mac's own commands")
def test_this_mac_answers():
    assert hardware.chip().found.startswith("Apple ") and hardware.system().status == "ok"
    assert hardware.working_set().status == "ok" and "when idle" in power.sleep().found
