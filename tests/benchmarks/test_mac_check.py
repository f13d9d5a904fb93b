"""mac-check: a step that fails, hangs or is not there keeps no other from being made; what is written says so."""

import json
import sys
import time

import psutil
import pytest

from benchmarks import mac_check
from benchmarks.mac_check import STEPS, Step
from mlx_ssd.cli import main
from mlx_ssd.recipe import Recipe, parse_override

HANGS = "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
HANGS += "print(child.pid, flush=True); child.wait()"
STUBBORN = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
STUBBORN += "print('deaf', flush=True); time.sleep(600)"
STAND_INS = (
    Step("doctor", "fails", 30, ("python", "-c", "print('no chip'); raise SystemExit(1)")),
    Step("tests", "hangs, with a child", 2, ("python", "-c", HANGS)),
    Step("bench", "is not there", 30, ("mlx-ssd", "no-such-command")),
    Step("smoke", "hears no Ctrl-C", 2, ("python", "-c", STUBBORN)),
    Step("skipped", "has nothing to do", 30, ("python", "-c", "print('6 skipped, 99 deselected in 1.00s')")),
    Step("quickstart", "passes", 30, ("python", "-c", "print('{work}')"), "quickstart"),
)


@pytest.fixture
def stand_ins(monkeypatch):
    monkeypatch.setattr(mac_check, "STEPS", STAND_INS)
    monkeypatch.setattr(mac_check, "PATIENCE", 0.5)


def result(work):
    return json.loads((work / "mac-check.json").read_text()), (work / "mac-check.md").read_text()


def ended(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_every_step_is_made_and_none_is_left_behind(stand_ins, tmp_path):
    assert mac_check.main(["--work", str(tmp_path)]) == 1
    facts, page = result(tmp_path)
    doctor, tests, bench, smoke, skipped, quickstart = facts["steps"]
    assert (doctor["outcome"], doctor["code"], doctor["tail"]) == ("failed", 1, ["no chip"])
    assert tests["outcome"] == "out of time" and 2 <= tests["seconds"] < 30
    assert ended(int(tests["tail"][0])), "what a step started ends with it"
    assert bench["outcome"] == "missing" and bench["command"] == "mlx-ssd no-such-command"
    assert smoke["outcome"] == "out of time" and smoke["code"] == -9 and smoke["tail"] == ["deaf"]
    assert skipped["outcome"] == "skipped"
    assert quickstart["outcome"] == "passed" and quickstart["tail"] == [str(tmp_path)]
    assert "stages" not in quickstart and "pass_at_1" not in quickstart, "what was not measured is not there"
    assert facts["mac"] == (sys.platform == "darwin") and ("**no Mac**" in page) != facts["mac"]
    assert facts["versions"]["mlx"] in page and facts["machine"]["chip"] in page
    for step in facts["steps"]:
        assert f"| {step['name']} | {step['what']} | {step['outcome']} | " in page


def test_only_and_skip(stand_ins, tmp_path, capsys):
    assert mac_check.main(["--work", str(tmp_path), "--only", "quickstart"]) == 0
    assert [step["name"] for step in result(tmp_path)[0]["steps"]] == ["quickstart"]
    chosen = ["--only", "quickstart", "--only", "bench", "--skip", "quickstart"]
    assert mac_check.main(["--work", str(tmp_path), *chosen]) == 0
    assert [step["outcome"] for step in result(tmp_path)[0]["steps"]] == ["missing"]
    for wrong in (["--only", "nose"], ["--only", "bench", "--skip", "bench"]):
        with pytest.raises(SystemExit) as refused:
            mac_check.main(wrong)
        assert refused.value.code == 2


def test_ctrl_c_ends_the_step_and_keeps_what_was_found(stand_ins, tmp_path, monkeypatch):
    class Interrupted(mac_check.subprocess.Popen):
        def wait(self, timeout=None):
            if timeout == 2:  # the step that hangs
                time.sleep(0.5)
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(mac_check.subprocess, "Popen", Interrupted)
    assert mac_check.main(["--work", str(tmp_path)]) == 130
    assert [step["outcome"] for step in result(tmp_path)[0]["steps"]] == ["failed", "interrupted"]


def test_figures_are_the_run_directorys(tmp_path):
    entry = {"complete": True, "measured": {"seconds": 2.5, "peak_mlx_bytes": 1_500_000_000, "steps": 3}}
    manifest = {"stages": {"train": entry, "evaluate": {"complete": False}}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    pass_at = {"mean": 0.5, "low": 0.25, "high": 0.75}
    scores = [{"arm": "base", "pass_at": {"1": pass_at, "5": {}}}, {"arm": "ungraded", "pass_at": {}}]
    (tmp_path / "scores.json").write_text(json.dumps({"scores": scores}))
    found = mac_check.figures(tmp_path)
    assert found["stages"] == {"train": {"seconds": 2.5, "peak_mlx_bytes": 1_500_000_000}}
    assert found["pass_at_1"] == {"base": pass_at}
    facts = {"mac": True, "macos": "15.5", "started": "now", "commit": "abc", "versions": {"mlx": "1"}}
    facts["machine"] = {"chip": "Apple M3", "cores": 8, "memory_bytes": 2**34, "system": "Darwin 25"}
    step = {"name": "smoke", "what": "w", "outcome": "passed", "seconds": 200, "limit_seconds": 450}
    page = mac_check.page(facts | {"steps": [step | {"command": "c", "tail": ["said"]} | found]})
    assert "Apple M3, 8 cores, 16 GB, macOS 15.5; now, commit abc." in page
    assert "| train | 2.5 |  | 1.50 |" in page and "| base | 0.500 | 0.250 to 0.750 |" in page and "    said" in page


def test_the_steps_take_twenty_minutes_at_most_and_their_commands_are_those_of_this_version():
    assert sum(step.seconds for step in STEPS if step.name != "download") <= 20 * 60
    assert [step.name for step in STEPS][-2:] == ["download", "smoke"] and mac_check.MODEL in STEPS[-1].command
    for step in STEPS:
        program, name, *arguments = step.command
        if program == "mlx-ssd" and name in main.commands:
            main.commands[name].make_context(name, arguments)  # click refuses what it does not know
    smoke = next(step for step in STEPS if step.name == "smoke").command
    settings = dict(parse_override(text) for option, text in zip(smoke, smoke[1:], strict=False) if option == "--set")
    assert Recipe.load("mac-4b-check", settings).problems.train.limit == 4
