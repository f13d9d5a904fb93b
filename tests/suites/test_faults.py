"""Grading and scoring, killed at any moment, on a full disk, or on a damaged journal: the same scores afterwards,
nothing graded twice, no generation lost."""

import random
import shutil
import subprocess
import sys
import time
from collections import Counter

import pytest

from mlx_ssd.errors import BadInput
from mlx_ssd.records import Grade
from mlx_ssd.storage import Journal
from tests import faults
from tests.suites import grading_child, stand_in

KILLS = 10  # of each of the two ways
SECONDS = 0.03  # a program, so that there is work to be killed in


def child(mode, directory, seconds=0.0):
    return faults.Forked(grading_child.work, mode, directory, seconds)


def run(mode, directory):
    """To its end, in this process."""
    grading_child.main(mode, directory, 0.0)


def ran(directory):
    return stand_in.StandIn(directory / "ran.txt").ran()


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
    run(request.param, directory)
    return request.param, directory


@pytest.fixture
def ungraded(graded, tmp_path):
    """(way, a copy of it as before grading, the whole)"""
    mode, whole = graded
    copy = shutil.copytree(whole, tmp_path / mode)
    for path in [*grades_of(mode, copy), *copy.glob("*made-of*"), copy / "scores.json", copy / "ran.txt"]:
        path.unlink()
    return mode, copy, whole


def same(mode, directory, whole):
    assert (directory / "scores.json").read_text() == (whole / "scores.json").read_text()
    assert journals(mode, directory) == journals(mode, whole)
    assert kept(directory) == kept(whole)


@pytest.mark.slow
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

    hit = faults.kill(lambda: child(mode, directory, SECONDS), size, expected, KILLS, seed=len(mode), own_work=True)
    assert hit >= KILLS - 1, "the kills must hit a process at work"
    assert not (directory / "scores.json").exists() and 0 < size() <= expected
    before = journals(mode, directory)
    so_far = len(ran(directory))
    run(mode, directory)
    same(mode, directory, whole)
    again = ran(directory)[so_far:]
    done = sum(len(found) for found in before.values())
    total = sum(len(found) for found in journals(mode, directory).values())
    assert len(again) <= total - done, "what had its grade on disk was run again"


def test_kill_while_scoring(ungraded):
    """All is graded; the scores are there whole or not at all, and the grades stay as they are."""
    mode, directory, whole = ungraded
    run(mode, directory)
    before, first = journals(mode, directory), ran(directory)
    generator = random.Random(0)
    for _ in range(4):
        (directory / "scores.json").unlink(missing_ok=True)
        process = child(mode, directory)
        time.sleep(generator.uniform(0.05, 0.5))
        process.kill()
        assert journals(mode, directory) == before and kept(directory) == kept(whole)
        if (directory / "scores.json").exists():
            assert (directory / "scores.json").read_text() == (whole / "scores.json").read_text()
    run(mode, directory)
    same(mode, directory, whole)
    assert ran(directory) == first


def test_a_repetition_runs_nothing(ungraded):
    mode, directory, whole = ungraded
    run(mode, directory)
    first = ran(directory)
    assert len(first) == len(set(first)) > stand_in.PROBLEMS
    (directory / "scores.json").unlink()
    run(mode, directory)
    assert ran(directory) == first
    same(mode, directory, whole)


def test_full_disk(ungraded):
    """A file size limit stands for the full disk: the kernel refuses the write in the same way."""
    mode, directory, whole = ungraded
    command = [sys.executable, "-m", "tests.suites.grading_child", mode, str(directory)]
    process = subprocess.run(
        ["sh", "-c", 'ulimit -f 4; exec "$@"', "sh", *command],  # 2 KB
        capture_output=True,
        text=True,
        env=faults.environment(),
    )
    assert process.returncode == 2, process.stderr
    said = [line for line in process.stderr.splitlines() if line.startswith("mlx-ssd: ")]
    assert len(said) == 1 and "no space left to write" in said[0] and "Traceback" not in process.stderr
    assert any(journals(mode, directory).values()) and not (directory / "scores.json").exists()
    assert kept(directory) == kept(whole)
    run(mode, directory)
    same(mode, directory, whole)


def test_a_torn_last_line_is_graded_again_alone(ungraded):
    mode, directory, whole = ungraded
    run(mode, directory)
    torn = grades_of(mode, directory)[0]
    torn.write_bytes(torn.read_bytes()[:-20])
    (directory / "scores.json").unlink()
    before = len(ran(directory))
    run(mode, directory)
    assert len(ran(directory)) <= before + 1
    same(mode, directory, whole)


def test_a_last_line_that_is_no_grade_is_refused_with_its_number(ungraded):
    mode, directory, whole = ungraded
    run(mode, directory)
    damaged = grades_of(mode, directory)[0]
    lines = damaged.read_bytes().splitlines(keepends=True)
    damaged.write_bytes(b"".join(lines[:-1]) + b'{"v": 1, "problem_id": \x00\n')
    before = ran(directory)
    with pytest.raises(BadInput) as refused:
        run(mode, directory)
    assert str(refused.value).startswith(f"{damaged}, line {len(lines)}: not a valid grade")
    assert ran(directory) == before and kept(directory) == kept(whole)
    damaged.write_bytes(b"".join(lines[:-1]))  # without that line it goes on
    run(mode, directory)
    same(mode, directory, whole)
