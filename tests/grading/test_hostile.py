"""Programs that mean harm: none passes, none outlasts its limits, none leaves anything, none reaches its aim.

The programs stand in hostile.py, how they are run and looked at in attack.py. Each is run with every level that the
machine offers, as a function and as a script; as the user of this session and, by root, as an ordinary one.
"""

import json
import os
from dataclasses import replace

import pytest
from attack import GOOD, LEVELS, as_an_ordinary_user, attack_all, level_of, must_hold
from hostile import EXPECTED, HOSTILE

from benchmarks.hostile import RESULTS, table
from mlx_ssd.grading import check_canaries, grade
from mlx_ssd.grading.probe import programs_running

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
    cold = level.endswith("cold")  # an interpreter for each program: slow, and the same from there on
    given, landlock = level_of(level)
    if given != level.removesuffix(", cold").removesuffix(" alone"):
        pytest.skip(f"this machine gives level {given}")
    found = attack_all(level, HOSTILE[::4] if cold else HOSTILE)
    assert_held(level, landlock, found)
    if level == "limits":  # the control: attacks work where nothing holds them, so the test can fail
        assert found["reads a secret"] and found["writes outside"] and found["connects by TCP"]


@pytest.fixture(scope="module")
def report_of_other():
    if os.getuid() != 0:
        pytest.skip("the session is an ordinary user's already")
    with as_an_ordinary_user() as report:
        if report is None:
            pytest.skip("no Python from 3.11 on that an ordinary user can run")
        yield report


@pytest.mark.parametrize("level", ["namespaces", "landlock", "limits"])
def test_hostile_as_an_ordinary_user(level, report_of_other):
    report = report_of_other(level)
    if "found" not in report:
        pytest.skip(f"an ordinary user gets level {report['level']} here")
    assert_held(level, report["landlock"], report["found"])


def test_the_documented_table_is_of_these_programs():
    results = json.loads(RESULTS.read_text())
    assert [row["name"] for row in results["rows"]] == list(BY_NAME)
    assert table(results) in (RESULTS.parents[2] / "docs" / "sandbox.md").read_text()


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
    for runs in (1, 2):  # the program's process, and a fork of it
        assert next(sandboxes["whole"].runs(code, [""] * runs, limits)).value == f"{limits.processes}\n"


def test_a_template_that_died_is_replaced(sandboxes, limits):
    sandbox = sandboxes["no-namespaces"]
    killer = "import os\nos.kill(os.getppid(), 9)\nwhile True: pass"
    assert sandbox.run(killer, "", limits).status in ("error", "timeout")
    assert grade("print(2 * int(input()))", None, GOOD, limits, sandbox).verdict == "pass"
    assert not programs_running(os.getpid())


def test_the_grader_still_grades(sandbox, limits):
    check_canaries(sandbox, limits)
