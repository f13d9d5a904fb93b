"""Programs that mean harm: none passes, none outlasts its limits, none leaves anything, none reaches its aim.

The programs stand in hostile.py, how they are run and looked at in attack.py. Each is run with every level that the
machine offers, as a function and as a script; as the user of this session and, by root, as an ordinary one.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from attack import GOOD, LEVELS, attack_all, level_of, must_hold
from hostile import EXPECTED, HOSTILE

from mlx_ssd.grading import check_canaries, grade
from mlx_ssd.grading.probe import programs_running

HERE = Path(__file__).parent
AS_NOBODY = {"user": 65534, "group": 65534, "extra_groups": [], "env": {}, "cwd": "/"}
BY_NAME = {hostile.name: hostile for hostile in HOSTILE}


def assert_held(level: str, landlock: int, found: dict) -> None:
    reached = {name: harm for name, harm in found.items() if harm}
    assert not reached.pop("all", None)
    wrongly = {name: harm for name, harm in reached.items() if must_hold(BY_NAME[name], level, landlock)}
    assert not wrongly
    ran = [name for name, harm in found.items() if harm is not None and name != "all"]
    assert len(ran) >= len(HOSTILE) // 4 if level.endswith("cold") else 100


def test_there_are_enough():
    assert len(BY_NAME) == len(HOSTILE) >= 60
    assert all(hostile.aim for hostile in HOSTILE if not hostile.limits)


@pytest.mark.parametrize("level", LEVELS)
def test_hostile(level):
    given, landlock = level_of(level)
    if given != level.removesuffix(", cold").removesuffix(" alone"):
        pytest.skip(f"this machine gives level {given}")
    cold = level.endswith("cold")  # an interpreter for each program: slow, and the same from there on
    found = attack_all(level, HOSTILE[::4] if cold else HOSTILE)
    assert_held(level, landlock, found)
    if level == "limits":  # the control: attacks work where nothing holds them, so the test can fail
        assert found["reads a secret"] and found["writes outside"] and found["connects by TCP"]


@pytest.fixture(scope="module")
def world_readable(tmp_path_factory):
    """What another user needs to run the attacks: an interpreter that it may execute, and the sources."""
    if os.getuid() != 0:
        pytest.skip("the session is an ordinary user's already")
    interpreters = [os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"]
    check = "import sys; sys.exit(sys.version_info < (3, 11))"
    for python in interpreters:
        with contextlib.suppress(OSError):
            if subprocess.run([python, "-c", check], **AS_NOBODY).returncode == 0:
                break
    else:
        pytest.skip("no Python from 3.11 on that an ordinary user can run")
    top = Path("/tmp/mlx-ssd-attack-%d" % os.getpid())  # pytest's own directories are closed to others
    ignore = shutil.ignore_patterns("__pycache__")
    try:
        shutil.copytree(HERE.parents[1] / "mlx_ssd", top / "mlx_ssd", ignore=ignore)
        shutil.copytree(HERE, top / "tests" / "grading", ignore=ignore)
        yield python, top / "tests" / "grading" / "attack.py"
    finally:
        shutil.rmtree(top)


@pytest.mark.parametrize("level", ["namespaces", "landlock", "limits"])
def test_hostile_as_an_ordinary_user(level, world_readable):
    python, script = world_readable
    command = [python, "-B", str(script), level]
    done = subprocess.run(command, capture_output=True, text=True, **AS_NOBODY)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    if "found" not in report:
        pytest.skip(f"an ordinary user gets level {report['level']} here")
    assert_held(level, report["landlock"], report["found"])


@pytest.mark.parametrize(
    "name, verdict",
    [
        ("memory flood", "memory"),
        ("memory flood by a list", "memory"),
        ("endless loop", "timeout"),
        ("output flood", "error"),
        ("endless loop that ignores every signal", "timeout"),
        ("sys.exit", "wrong"),
        ("huge integer", "wrong"),
    ],
)
def test_the_verdict_names_the_limit(name, verdict, sandbox, limits):
    code = BY_NAME[name].code
    tests = [{"args": [1], "expected": EXPECTED}] if "def f" in code else [{"stdin": "", "stdout": EXPECTED}]
    if verdict != "memory":
        limits = replace(limits, wall_seconds=1.0)
    assert grade(code, "f", tests, limits, sandbox).verdict == verdict


@pytest.mark.parametrize(
    "harm", ["os.mkdir('d'); os.chdir('d')", "open(os.urandom(8).hex(), 'w').write('x' * 60_000)"]
)
def test_a_directory_in_memory_cannot_be_overfilled(harm, sandboxes, limits):
    if not sandboxes["whole"].mechanisms()["root"]:
        pytest.skip("no mount namespace")
    outcome = sandboxes["whole"].run(f"import os\nwhile True: {harm}", "", limits)
    assert "No space left on device" in outcome.detail


def test_the_number_of_processes_is_held(sandboxes, limits):
    code = "import os, time\nmade = 0\nfor _ in range(30):\n    try: os.fork() or time.sleep(60)\n"
    code += "    except OSError: break\n    made += 1\nprint(made)"
    if "user" not in sandboxes["whole"].mechanisms()["namespaces"]:
        pytest.skip("no user namespace")
    assert sandboxes["whole"].run(code, "", limits).value == f"{limits.processes}\n"


def test_a_template_that_died_is_replaced(sandboxes, limits):
    sandbox = sandboxes["no-namespaces"]
    killer = "import os\nos.kill(os.getppid(), 9)\nwhile True: pass"
    assert sandbox.run(killer, "", limits).status in ("error", "timeout")
    assert grade("print(2 * int(input()))", None, GOOD, limits, sandbox).verdict == "pass"
    assert not programs_running(os.getpid())


def test_the_grader_still_grades(sandbox, limits):
    check_canaries(sandbox, limits)
