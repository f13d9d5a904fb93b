"""What ends a process is survived as it should be: by processes that only end."""

import json
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from benchmarks.control_group import control_group, refusal
from mlx_ssd.errors import BadInput, RankLost, WorkFailed
from mlx_ssd.machine import memory, power
from mlx_ssd.supervision import conditions, supervise, watch
from mlx_ssd.supervision.bounds import Bounds

QUICK = Bounds(tries=3, idle_seconds=20.0, check_seconds=0.1, disk_reserve=0)
ROOT = Path(__file__).parents[2]
WORK = Path(__file__).with_name("fake_work.py")
Usage = namedtuple("Usage", "total used free")


class Supervised:
    """What came of a work: its exit code or the error, the failures on the way, and what each start saw."""

    def __init__(self, folder, starts, patience=QUICK):
        self.script = folder / "script.json"
        self.script.write_text(json.dumps(starts))
        self.failures, self.code, self.error = [], None, None
        with open(folder / "lock", "w") as lock:
            try:
                self.code = supervise(
                    [sys.executable, "-P", str(WORK), str(self.script)],
                    lock.fileno(),
                    name="sample",
                    directory=folder,
                    on_failure=self.failures.append,
                    bounds=patience,
                )
            except (WorkFailed, BadInput) as error:
                self.error = error
        seen = self.script.with_suffix(".seen")
        self.seen = [json.loads(line) for line in seen.read_text().splitlines()] if seen.exists() else []

    @property
    def allowed(self):
        return [start["allowed"] for start in self.seen]


def at(done):
    return [["sample", done, 100]]


def runs(pid):
    """Whether a process is there, and not only remembered."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.fixture
def kernel(monkeypatch):
    """Sets how many processes the kernel says to have killed for memory, before and after each start."""

    def says(*counts):
        left = list(counts)
        monkeypatch.setattr(memory, "kills_for_memory", lambda: left.pop(0) if left else None)

    says()
    return says


def test_what_ends_by_itself_is_not_tried_again(tmp_path):
    for code in (0, 1, 2):
        folder = tmp_path / str(code)
        folder.mkdir()
        done = Supervised(folder, [{"end": code}])
        assert (done.code, len(done.seen), done.failures) == (code, 1, [])


def test_killed_with_progress_between_goes_on_beyond_three_tries(tmp_path, kernel, capfd):
    deaths = [{"marks": at(n), "end": "SIGILL"} for n in (1, 5, 9, 13)]
    done = Supervised(tmp_path, [*deaths, {"marks": at(20), "end": 0}])
    assert done.code == 0 and len(done.seen) == 5
    assert [failure.facts["where"] for failure in done.failures] == [f"at sample {n} of 100" for n in (1, 5, 9, 13)]
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 4 and said[0].startswith("mlx-ssd: sample was ended by SIGILL at sample 1 of 100; it goes on")


def test_gives_up_where_three_tries_come_no_further(tmp_path, kernel):
    done = Supervised(tmp_path, [{"marks": at(7), "end": "SIGILL"}, {"marks": at(6), "end": "SIGILL"}])
    assert len(done.seen) == 3 and len(done.failures) == 3
    assert "3 tries in a row came no further" in str(done.error) and "same command goes on" in str(done.error)


def test_what_fails_before_it_can_say_why_is_tried_again(tmp_path, kernel):
    done = Supervised(tmp_path, [{"end": "no start"}, {"end": 0}])
    assert done.code == 0 and len(done.seen) == 2
    assert done.failures[0].sentence.startswith("sample failed while it started (see above) before its work began")


def test_a_training_that_lost_another_machine_goes_on(tmp_path, kernel):
    done = Supervised(tmp_path, [{"end": RankLost.exit_code}, {"end": 0}])
    assert done.code == 0 and len(done.seen) == 2
    assert done.failures[0].facts["ended"] == "lost another rank"
    assert "it goes on by itself (try 2 of 3" in done.failures[0].sentence


def test_a_process_that_somebody_asked_to_end_is_not_started_again(tmp_path, kernel):
    done = Supervised(tmp_path, [{"end": "SIGTERM"}])
    assert len(done.seen) == 1 and "somebody asked" in str(done.error)


def test_want_of_memory_lowers_the_budget_and_a_refusal_is_no_bad_input(tmp_path, kernel):
    ends = ((1, "memory"), (1, "memory_in_words"), (2, "memory"))
    short = [{"budget": 1000, "marks": at(n), "end": end} for n, end in ends]
    done = Supervised(tmp_path, [*short, {"budget": 1000, "end": "refuse"}])
    assert done.allowed == [1000, 750, 375, 281]
    assert done.failures[0].facts["memory_bytes"] == 750
    assert isinstance(done.error, WorkFailed) and "after it ran out with more" in str(done.error)


def test_the_same_signal_at_the_same_place_with_less_memory_is_a_defect(tmp_path, kernel):
    done = Supervised(tmp_path, [{"budget": 1000, "marks": at(4), "end": "SIGSEGV"}])
    assert done.allowed == [1000, 750]
    assert "not for want of memory" in str(done.error)


def test_before_it_has_a_budget_there_is_none_to_lower(tmp_path, kernel):
    done = Supervised(tmp_path, [{"end": "SIGABRT"}, {"budget": 1000, "end": 0}])
    assert done.code == 0 and done.allowed == [None, 1000]


@pytest.mark.parametrize("counts, second", [((5, 6), 750), ((5, 5), 1000), ((None, None), 750)])
def test_a_kill_is_for_memory_where_the_kernel_says_so_or_says_nothing(tmp_path, kernel, counts, second):
    kernel(*counts, 9, 9)
    start = {"budget": 1000, "marks": at(4)}
    done = Supervised(tmp_path, [start | {"end": "SIGKILL"}, start | {"end": 0}])
    assert done.code == 0 and done.allowed == [1000, second]


def test_what_hangs_is_killed_with_what_it_started_and_goes_on(tmp_path, kernel, monkeypatch):
    monkeypatch.setattr(watch, "LEAVE_SECONDS", 0.1)
    patient = Bounds(idle_seconds=2.0, check_seconds=0.2, disk_reserve=0)
    done = Supervised(tmp_path, [{"marks": at(3), "end": "SIGSTOP", "helper": True}, {"end": 0}], patient)
    assert done.code == 0 and "gave no sign" in done.failures[0].sentence
    assert not runs(done.seen[0]["helper"])


def test_signs_of_life_within_a_step_are_no_hang_and_no_progress(tmp_path, kernel):
    patient = Bounds(tries=2, idle_seconds=2.0, check_seconds=0.1, disk_reserve=0)
    done = Supervised(tmp_path, [{"end": "breathe_and_die"}], patient)
    assert [failure.facts["ended"] for failure in done.failures] == 2 * ["was ended by SIGILL"]
    assert "2 tries in a row came no further" in str(done.error)


@pytest.mark.parametrize("a_look, looks", [(0.001, 10), (0.5, 60)])  # processor seconds in one; until it is killed
def test_silence_is_a_hang_sooner_where_nothing_is_computed(monkeypatch, a_look, looks):
    worked = [0.0]
    monkeypatch.setattr(watch, "_processor_seconds", lambda _: worked[0])
    watched = watch._Watch(SimpleNamespace(pid=0), 0, Bounds(idle_seconds=10, check_seconds=1), None)
    monkeypatch.setattr(watched, "kill", lambda: None)

    def until_killed():
        for number in range(100):
            watched._judge_silence(1.0)
            if watched._end.hung is not None:
                return number
            worked[0] += a_look

    for _ in range(5):  # the first look only begins to count
        watched._judge_silence(1.0)
    watched._take({"at": "sample", "done": 1, "total": 2})
    assert until_killed() == looks


@pytest.mark.parametrize("end", ["wait", "wait_and_die"])
def test_a_full_disk_is_refused_before_and_ends_the_work_while_it_runs(tmp_path, monkeypatch, end):
    reserving = Bounds(check_seconds=0.1, disk_reserve=1000)
    free = [999]
    monkeypatch.setattr(conditions.shutil, "disk_usage", lambda _: Usage(0, 0, free[0]))
    refused = Supervised(tmp_path, [{"end": 0}], reserving)
    assert isinstance(refused.error, BadInput) and "no space left" in str(refused.error) and refused.seen == []
    free[0] = 1000
    monkeypatch.setattr(
        conditions.shutil, "disk_usage", lambda _: Usage(0, 0, 0 if (tmp_path / "script.seen").exists() else 1000)
    )
    ended = Supervised(tmp_path, [{"end": end}], reserving)
    assert "no space left" in str(ended.error) and (tmp_path / "script.saved").exists()


def test_battery_is_said_once_and_a_low_one_ends_the_work(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(conditions._Battery, "on", False)
    monkeypatch.setattr(power, "on_battery", lambda: 60.0)
    for _ in range(2):
        assert Supervised(tmp_path, [{"end": 0}]).code == 0
    assert capfd.readouterr().err.count("runs on battery (60 %)") == 1
    monkeypatch.setattr(power, "on_battery", lambda: None)
    assert Supervised(tmp_path, [{"end": 0}]).code == 0
    assert "plugged in again" in capfd.readouterr().err
    monkeypatch.setattr(power, "on_battery", lambda: 9.0)
    low = Supervised(tmp_path, [{"end": 0}])
    assert isinstance(low.error, WorkFailed) and "battery is at 9 %" in str(low.error)


def test_bounds_come_from_the_environment(monkeypatch):
    assert Bounds.from_environment() == Bounds()
    for name, value in (("TRIES", "1"), ("HANG_SECONDS", "8"), ("DISK_RESERVE_MB", "0.5")):
        monkeypatch.setenv(f"MLX_SSD_{name}", value)
    found = Bounds.from_environment()
    assert found == Bounds(tries=1, idle_seconds=8.0, check_seconds=2.0, disk_reserve=500_000)
    for wrong in ("many", "0", "nan"):
        monkeypatch.setenv("MLX_SSD_TRIES", wrong)
        with pytest.raises(BadInput, match="MLX_SSD_TRIES=.*above 0"):
            Bounds.from_environment()


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not hold a process to an address space")
def test_an_address_space_that_is_too_small_is_worked_in(tmp_path, kernel):
    done = Supervised(tmp_path, [{"budget": 400_000_000, "room": 350_000_000, "end": "fill"}])
    assert done.code == 0 and done.allowed == [400_000_000, 300_000_000]
    assert done.failures[0].sentence.startswith("sample ran out of memory")


IN_A_GROUP = """
import sys
from pathlib import Path
from types import SimpleNamespace
from mlx_ssd.machine import memory
from tests.supervision.test_supervise import Supervised
assert memory.limit_bytes() == 950 << 20, memory.limits()
done = Supervised(Path(sys.argv[1]), [{"budget": 1_000_000_000, "end": "fill"}])
assert done.code == 0 and done.allowed == [1_000_000_000, int(0.75 * (950 << 20))], (done.error, done.allowed)
assert "the system ran out of memory" in done.failures[0].sentence
"""


@pytest.mark.skipif(refusal() is not None, reason=str(refusal()))
def test_a_control_group_is_known_and_its_kill_survived(tmp_path):
    for number in range(3):
        command = [sys.executable, "-c", IN_A_GROUP, str(tmp_path / f"{number}")]
        (tmp_path / f"{number}").mkdir()
        with control_group(950 << 20) as group:
            done = subprocess.run(group.command(command), cwd=ROOT, capture_output=True, text=True, check=False)
            kills, peak = group.kills(), group.peak_bytes()
        if not (done.returncode == -signal.SIGKILL and kills > 1):
            break  # else the kernel did not wait until what it killed first was gone, and took the supervisor too
    assert done.returncode == 0, done.stderr
    assert kills == 1 and peak <= 950 << 20


DRIVER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever this process inherits
from pathlib import Path
from types import SimpleNamespace
from tests.supervision.test_supervise import Supervised
sys.exit(Supervised(Path(sys.argv[1]), [{"marks": [["sample", 1, 9]], "end": sys.argv[2]}]).code)
"""


def wait_for_start(folder):
    """The process id of the work, once it runs."""
    seen, deadline = folder / "script.seen", time.monotonic() + 30
    while not (seen.exists() and seen.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return json.loads(seen.read_text())["pid"]


@pytest.mark.parametrize("state", ["wait", "SIGSTOP"])
def test_no_process_outlives_its_supervisor(tmp_path, state):
    if state == "SIGSTOP" and sys.platform != "linux":
        pytest.skip("only Linux ends a stopped process with its parent")
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path), state], cwd=ROOT)
    pid = wait_for_start(tmp_path)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    deadline = time.monotonic() + 10
    while runs(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not runs(pid)


def test_interrupted_is_130_and_the_work_has_saved(tmp_path):
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path), "wait"], cwd=ROOT)
    wait_for_start(tmp_path)
    driver.send_signal(signal.SIGINT)  # to the supervisor alone: it passes it on
    assert driver.wait(30) == 130 and (tmp_path / "script.saved").exists()
