"""`mlx-ssd doctor`: every check answers in time, says what is wrong and how to mend it."""

import json
import platform
import shutil
import sys
import threading
import time
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement

from mlx_ssd import doctor, machine
from mlx_ssd.cli import main
from mlx_ssd.doctor import hardware, packages, power, reach, sandbox
from mlx_ssd.doctor.finding import Finding, ask
from mlx_ssd.errors import WorkFailed
from tests import faults

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checks(monkeypatch):
    """The checks that are made, which a test chooses."""
    chosen = {"good": lambda: Finding("ok", "all well")}
    monkeypatch.setattr(doctor, "CHECKS", chosen)
    return chosen


def invoke(*arguments):
    return CliRunner().invoke(main, ["doctor", *arguments])


class TestCommand:
    def test_on_this_machine(self):
        start = time.monotonic()
        done = faults.run("doctor", "--json", env=faults.environment() | {"HF_HUB_OFFLINE": "1"})
        facts = json.loads(done.stdout)
        assert time.monotonic() - start < 30 and done.stderr == ""  # it is 3 s on a machine that is not busy
        found = {check["name"]: check for check in facts["checks"]}
        elsewhere = {"sleep"} if sys.platform == "linux" else {"blas"}
        assert set(found) == set(doctor.CHECKS) - elsewhere
        assert found["hub"]["found"].startswith("not asked")
        assert (facts["verdict"] == "fail") == (done.returncode == 1)
        assert all(bool(check["mend"]) == (check["status"] != "ok") for check in facts["checks"])

    def test_a_line_each_and_the_mend_below(self, checks):
        checks["bad"] = lambda: Finding("warn", "half of it", "mend it")
        done = invoke()
        assert done.exit_code == 0
        good, bad, mend = done.output.splitlines()
        assert good.split() == ["ok", "good", "all", "well"] and bad.split()[:2] == ["warn", "bad"]
        assert mend.strip() == "-> mend it"

    def test_exit_1_where_something_fails(self, checks):
        checks["bad"] = lambda: Finding("fail", "nothing", "mend it")
        checks["worse"] = lambda: Finding("warn", "half of it", "mend it")
        assert invoke().exit_code == 1
        done = invoke("--json")
        assert done.exit_code == 1 and json.loads(done.stdout)["verdict"] == "fail"

    def test_what_hangs_or_raises_hides_nothing(self, checks, monkeypatch):
        monkeypatch.setattr(doctor, "SECONDS", 0.2)
        monkeypatch.setattr(doctor, "LONGER", {"slow": 5.0})
        never = threading.Event()
        checks |= {"hangs": never.wait, "raises": lambda: 1 / 0, "silent": lambda: None}
        start = time.monotonic()
        found = doctor.examine()
        never.set()
        assert time.monotonic() - start < 2 and list(found) == ["good", "hangs", "raises"]
        assert found["hangs"].status == "warn" and "no answer in 0.2 s" in found["hangs"].found
        assert found["raises"].status == "warn" and "ZeroDivisionError" in found["raises"].found
        assert found["good"].status == "ok"
        checks["slow"] = lambda: time.sleep(0.5) or Finding("ok", "at last")
        assert doctor.examine()["slow"].found == "at last"


def test_a_command_that_is_not_there_fails_or_hangs_answers_nothing(monkeypatch):
    monkeypatch.setattr("mlx_ssd.doctor.finding.PATIENCE", 0.2)
    assert ask("echo", " said ") == "said"
    assert ask("no-such-command") == ask("false") == ask("sleep", "9") == ""


@pytest.mark.parametrize(
    "bounds, status, words",
    [
        ({"memory": 17_179_869_184}, "ok", "17.2 GB"),
        ({"memory": 8_589_934_592}, "warn", "8.6 GB"),
        ({"memory": 64_000_000_000, "control group": 4_000_000_000}, "warn", "(control group) leaves 4.0 GB"),
        ({"memory": 64_000_000_000, "address space": 1_000_000_000}, "fail", "(address space) leaves 1.0 GB"),
    ],
)
def test_memory(bounds, status, words, monkeypatch):
    monkeypatch.setattr(hardware.limits, "limits", lambda: bounds)
    said = hardware.memory()
    assert said.status == status and words in said.found


def test_mlx_computes_here():
    said = hardware.working_set()
    assert said.status == "ok" and said.found.startswith("MLX computes")


class TestBlas:
    pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="macOS has Accelerate")

    def test_none(self, monkeypatch):
        monkeypatch.setattr(machine, "openblas", lambda: None)
        said = hardware.blas()
        assert said.status == "warn" and "apt install libopenblas0-pthread" in said.mend

    def test_there_and_not_used(self, monkeypatch):
        monkeypatch.setattr(machine, "openblas", lambda: Path("/lib/libopenblas.so.0"))
        monkeypatch.delenv("MLX_SSD_BLAS", raising=False)
        assert hardware.blas() == Finding("ok", "OpenBLAS, /lib/libopenblas.so.0")
        monkeypatch.setenv("MLX_SSD_BLAS", "bundled")
        assert hardware.blas().status == "warn"


class TestVersions:
    def test_those_known_good_are_allowed(self):
        """Of the table, every one that the project asks for, and of the project all that it asks for."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        asked = [Requirement(text) for text in project["dependencies"]]
        optional = [Requirement(text) for texts in project["optional-dependencies"].values() for text in texts]
        known = packages.REQUIRED | packages.OPTIONAL
        assert {one.name.lower() for one in asked} == {name.lower() for name in packages.REQUIRED}
        for one in (*asked, *optional):
            version = {name.lower(): version for name, version in known.items()}.get(one.name.lower())
            assert version is None or version in one.specifier, f"{one} is not what the table says: {version}"
        pinned = dict(line.split("==") for line in (ROOT / ".ci" / "constraints.txt").read_text().split())
        assert {name: known[name] for name in ("torch", "numpy")} == {name: pinned[name] for name in ("torch", "numpy")}

    def test_missing_other_and_known_good(self, monkeypatch):
        here = packages.REQUIRED | {"torch": "2.13.0"}
        monkeypatch.setattr(packages, "_version", here.get)
        assert packages.packages().status == "ok" and "torch 2.13.0" in packages.packages().found
        here["mlx"] = "0.33.0"
        said = packages.packages()
        assert (said.status, said.found) == ("warn", f"mlx 0.33.0 (known good: {packages.REQUIRED['mlx']})")
        assert said.mend.endswith(f"pip install mlx=={packages.REQUIRED['mlx']}")
        del here["mlx-lm"]
        assert packages.packages() == Finding("fail", "missing: mlx-lm", "install the project anew: pip install -e .")

    @pytest.mark.parametrize("minor, status", [(10, "fail"), (11, "ok"), (13, "warn"), (14, "fail")])
    def test_python(self, minor, status, monkeypatch):
        monkeypatch.setattr(packages.sys, "version_info", (3, minor, 1))
        monkeypatch.setattr(platform, "python_version", lambda: "x")
        assert packages.python().status == status


@pytest.mark.parametrize("level", ["namespaces", "landlock", "seatbelt", "limits"])
def test_sandbox(level, monkeypatch):
    from mlx_ssd.grading import levels

    monkeypatch.setattr(levels, "level_here", lambda: level)
    said = sandbox.level()
    assert said.found.startswith(f"level {level}; ") and said.status == ("warn" if level == "limits" else "ok")


@pytest.mark.parametrize("command", [["-c", "import nothing"], ["-c", "pass"]])
def test_a_sandbox_in_which_nothing_runs(command, monkeypatch):
    """It is no level: who is told of one would find out after the night that nothing was graded."""
    from mlx_ssd.grading import ProcessSandbox, levels

    levels.level_here.cache_clear()
    monkeypatch.setattr(ProcessSandbox, "command", lambda self, home: [sys.executable, *command])
    said = sandbox.level()
    assert said.status == "fail" and said.found.startswith("the sandbox does not start here (")
    with pytest.raises(WorkFailed, match="no program can be graded"):
        levels.check_level("any")


def test_a_grader_that_is_not_to_be_trusted(monkeypatch):
    from mlx_ssd.grading import Outcome, ProcessSandbox

    monkeypatch.setattr(ProcessSandbox, "runs", lambda *_: (Outcome("ok", "42\n") for _ in range(1)))
    said = sandbox.level()
    assert said.status == "fail" and "a wrong script was graded pass instead of wrong" in said.found


class TestReach:
    def test_free_disk(self, monkeypatch, tmp_path):
        monkeypatch.setattr(reach, "RUNS", tmp_path / "not" / "there" / "yet")
        assert abs(reach._free(reach.RUNS) - shutil.disk_usage(tmp_path).free) < 1e9  # others write, too
        for free, status in ((5e8, "fail"), (5e9, "warn"), (5e10, "ok")):
            monkeypatch.setattr(reach, "_free", lambda path, free=free: free if "hub" in str(path) else 1e12)
            said = reach.disk()
            assert said.status == status and "1000.0 GB free for runs/" in said.found

    @pytest.fixture
    def hub(self, monkeypatch):
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(reach, "HUB_SECONDS", 0.3)
        return lambda address: monkeypatch.setattr(constants, "ENDPOINT", address)

    @pytest.mark.parametrize("code", [200, 404])
    def test_hub_that_answers(self, code, hub):
        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.send_response(code)
                self.end_headers()

            def log_message(self, *_):
                pass

        with HTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.handle_request, daemon=True).start()
            hub(f"http://127.0.0.1:{server.server_port}")
            assert reach.hub().status == "ok"

    def test_hub_that_is_not_there_or_hangs_or_is_no_address(self, hub):
        import socket

        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            for address in (f"http://127.0.0.1:{port}", "http://127.0.0.1:9", "nonsense"):
                hub(address)
                said = reach.hub()
                assert said.status == "warn" and said.found.startswith(f"{address} does not answer (")
                assert "HF_ENDPOINT" in said.mend


def test_battery_elsewhere(monkeypatch):
    monkeypatch.setattr(power.sys, "platform", "linux")
    monkeypatch.setattr(power, "on_battery", lambda: 12.0)
    assert power.power().status == "warn"
    monkeypatch.setattr(power, "on_battery", lambda: None)
    assert power.power().status == "ok" and power.sleep() is None
