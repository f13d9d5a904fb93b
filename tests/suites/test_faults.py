"""Grading and scoring, killed at any moment, on a full disk, or on a damaged journal: the same scores afterwards,
nothing graded twice, no generation lost."""

import os
import shutil
import subprocess
import sys
from collections import Counter

import pytest

from mlx_ssd.records import Grade
from mlx_ssd.storage import Journal
from tests import faults
from tests.suites import grading_child, stand_in

KILLS = 10  # of each of the two ways
SECONDS = 0.03  # a program, so that there is work to be killed in
ENVIRONMENT = {"MLX_SSD_CACHE": ""}


def command(mode, directory, seconds=0.0):
    return [sys.executable, "-m", "tests.suites.grading_child", mode, str(directory), str(seconds)]


def run(mode, directory, *before):
    environment = faults.environment() | ENVIRONMENT
    return subprocess.run([*before, *command(mode, directory)], capture_output=True, text=True, env=environment)


def grades_of(mode, directory):
    return sorted(directory.glob("grades.jsonl" if mode == "file" else "eval/*/*.grades.jsonl"))


def kept(directory):
    """What is never touched: problems, answers, generations."""
    files = [*directory.glob("*s.jsonl"), *directory.glob("eval/*/*.generations.jsonl")]
    return {path.relative_to(directory): path.read_bytes() for path in files if path.name != "grades.jsonl"}


def journals(mode, directory):
    """The lines of each journal of grades, of which none may stand twice."""
    found = {}
    for path in grades_of(mode, directory):
        keys = Counter(grade.key for grade in Journal(path, Grade).read())
        assert set(keys.values()) <= {1}, "something was graded twice"
        found[path.relative_to(directory)] = sorted(path.read_text().splitlines())
    return found


@pytest.fixture(scope="module", params=["file", "run"])
def graded(request, tmp_path_factory):
    """(way, directory) of what was graded and scored without a fault."""
    directory = tmp_path_factory.mktemp("graded") / request.param
    stand_in.write(directory)
    if request.param == "run":
        grading_child.draw(directory)
    process = run(request.param, directory)
    assert process.returncode == 0, process.stderr
    return request.param, directory


@pytest.fixture
def ungraded(graded, tmp_path):
    """(way, a copy of it before grading, its copy afterwards)"""
    mode, whole = graded
    copy = shutil.copytree(whole, tmp_path / mode)
    for path in [*grades_of(mode, copy), *copy.glob("*made-of*"), copy / "scores.json", copy / "ran.txt"]:
        path.unlink()
    if mode == "run":  # its recipe names the problems by their place
        return mode, copy, whole
    return mode, copy, whole


def same(mode, directory, whole):
    assert (directory / "scores.json").read_text() == (whole / "scores.json").read_text()
    assert journals(mode, directory) == journals(mode, whole)
    assert kept(directory) == kept(whole)


def test_kill_at_random_moments(ungraded):
    mode, directory, whole = ungraded
    lines: dict = {}
    expected = sum(path.stat().st_size for path in grades_of(mode, whole))

    def size():
        """Bytes of grades; what once was a whole line stays where it is."""
        held = 0
        for path in grades_of(mode, directory):
            text = path.read_bytes()
            assert text.startswith(lines.get(path, b"")), "a grade was lost"
            lines[path] = text[: text.rfind(b"\n") + 1]
            held += len(text)
        return held

    os.environ.update(ENVIRONMENT)
    hit = faults.kill(command(mode, directory, SECONDS), size, expected, KILLS, seed=len(mode), own_work=True)
    assert hit >= KILLS - 1, "the kills must hit a process at work"
    assert not (directory / "scores.json").exists() and 0 < size() < expected
    before = journals(mode, directory)
    ran = stand_in.StandIn(directory / "ran.txt").ran()
    process = run(mode, directory)
    assert process.returncode == 0, process.stderr
    same(mode, directory, whole)
    again = stand_in.StandIn(directory / "ran.txt").ran()[len(ran) :]
    done = sum(len(found) for found in before.values())
    total = sum(len(found) for found in journals(mode, directory).values())
    assert len(again) <= total - done, "what had its grade on disk was run again"


def test_a_repetition_runs_nothing(ungraded):
    mode, directory, whole = ungraded
    assert run(mode, directory).returncode == 0
    ran = stand_in.StandIn(directory / "ran.txt").ran()
    assert len(ran) == len(set(ran)) > stand_in.PROBLEMS
    (directory / "scores.json").unlink()
    assert run(mode, directory).returncode == 0
    assert stand_in.StandIn(directory / "ran.txt").ran() == ran
    same(mode, directory, whole)


def test_full_disk(ungraded):
    """A file size limit stands for the full disk: the kernel refuses the write in the same way."""
    mode, directory, whole = ungraded
    process = run(mode, directory, "sh", "-c", 'ulimit -f 4; exec "$@"', "sh")  # 2 KB
    assert process.returncode == 2, process.stderr
    said = [line for line in process.stderr.splitlines() if line.startswith("mlx-ssd: ")]
    assert len(said) == 1 and "no space left to write" in said[0] and "Traceback" not in process.stderr
    held = journals(mode, directory)
    assert any(held.values()) and not (directory / "scores.json").exists()
    assert kept(directory) == kept(whole)
    process = run(mode, directory)
    assert process.returncode == 0, process.stderr
    same(mode, directory, whole)


def test_a_torn_last_line_is_graded_again_alone(ungraded):
    mode, directory, whole = ungraded
    assert run(mode, directory).returncode == 0
    torn = grades_of(mode, directory)[0]
    torn.write_bytes(torn.read_bytes()[:-20])
    (directory / "scores.json").unlink()
    ran = len(stand_in.StandIn(directory / "ran.txt").ran())
    process = run(mode, directory)
    assert process.returncode == 0, process.stderr
    assert len(stand_in.StandIn(directory / "ran.txt").ran()) <= ran + 1
    same(mode, directory, whole)


def test_a_last_line_that_is_no_grade_is_refused_with_its_number(ungraded):
    mode, directory, whole = ungraded
    assert run(mode, directory).returncode == 0
    damaged = grades_of(mode, directory)[0]
    lines = damaged.read_bytes().splitlines(keepends=True)
    damaged.write_bytes(b"".join(lines[:-1]) + b'{"v": 1, "problem_id": \x00\n')
    ran = stand_in.StandIn(directory / "ran.txt").ran()
    process = run(mode, directory)
    assert process.returncode == 2 and "Traceback" not in process.stderr
    assert f"{damaged}, line {len(lines)}: not a valid grade" in process.stderr
    assert stand_in.StandIn(directory / "ran.txt").ran() == ran and kept(directory) == kept(whole)
    damaged.write_bytes(b"".join(lines[:-1]))  # as the sentence says: without that line
    assert run(mode, directory).returncode == 0
    same(mode, directory, whole)
