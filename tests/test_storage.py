"""Journals, atomic files, hashes and the lock."""

import os
import subprocess
import sys

import pytest

from mlx_ssd import storage
from mlx_ssd.errors import BadInput
from mlx_ssd.records import Grade
from mlx_ssd.storage import Journal, atomic_path, hash_path, run_lock, write_atomic


def grade(index, detail=""):
    return Grade(problem_id="p", sample_index=index, verdict="pass", detail=detail)


def write(journal, *grades):
    with journal.appending() as appender:
        appender.append(grades)


def test_journal_keeps_what_was_appended_across_openings(tmp_path):
    journal = Journal(tmp_path / "sub" / "j.jsonl", Grade)
    assert journal.read() == []
    write(journal, grade(0), grade(1))
    write(journal, grade(2, "ü\u2028 line separator inside"))
    assert journal.read() == [grade(0), grade(1), grade(2, "ü\u2028 line separator inside")]


@pytest.mark.parametrize("cut", range(1, 60))
def test_torn_tail_at_any_byte_loses_only_the_torn_line(tmp_path, cut):
    journal = Journal(tmp_path / "j.jsonl", Grade)
    write(journal, grade(0), grade(1))
    data = journal.path.read_bytes()
    journal.path.write_bytes(data[:-cut])
    assert journal.read() == [grade(0)]
    write(journal, grade(7))
    assert journal.read() == [grade(0), grade(7)]


def test_damage_before_the_tail_is_an_error_with_its_line(tmp_path):
    journal = Journal(tmp_path / "j.jsonl", Grade)
    write(journal, grade(0), grade(1), grade(2))
    lines = journal.path.read_text().splitlines(keepends=True)
    journal.path.write_text(lines[0] + "{broken\n" + lines[2])
    with pytest.raises(BadInput, match="j.jsonl, line 2: not a valid grade"):
        journal.read()


def test_newer_format_is_refused(tmp_path):
    journal = Journal(tmp_path / "j.jsonl", Grade)
    journal.path.write_text(grade(0).line().replace('"v":1', '"v":2'))
    with pytest.raises(BadInput, match="line 1"):
        journal.read()


def test_atomic_write_leaves_the_old_file_on_error(tmp_path):
    target = tmp_path / "f.txt"
    write_atomic(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["f.txt"]


FULL_DISK = """
import resource, sys
from pathlib import Path
from mlx_ssd.records import Grade
from mlx_ssd.storage import Journal
resource.setrlimit(resource.RLIMIT_FSIZE, (250, 250))
journal = Journal(Path(sys.argv[1]), Grade)
with journal.appending() as appender:
    for index in range(100):
        appender.append([Grade(problem_id="p", sample_index=index, verdict="pass")])
"""


def test_full_disk_leaves_whole_lines_only(tmp_path):
    path = tmp_path / "j.jsonl"
    process = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True)
    assert "OSError" in process.stderr and str(path) in process.stderr
    kept = Journal(path, Grade).read()
    assert kept and kept == [grade(i) for i in range(len(kept))]
    assert path.read_bytes().endswith(b"\n")


def test_folder_hash_sees_names_and_contents(tmp_path):
    (tmp_path / "a").write_text("1")
    before = hash_path(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = hash_path(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({before, renamed, hash_path(tmp_path)}) == 3


HOLD = """
import sys
from pathlib import Path
from mlx_ssd.storage import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_second_process_is_refused_with_the_holders_pid_and_let_in_after_its_death(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(BadInput, match=f"in use by process {holder.pid}"), run_lock(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with run_lock(tmp_path):
        pass


@pytest.mark.parametrize(
    "number, words",
    [("ENOSPC", "free some disk space"), ("EACCES", "permission"), ("ENOENT", "does not exist")],
)
def test_operating_system_errors_say_what_to_do(number, words):
    import errno

    error = OSError(getattr(errno, number), "x", "/some/file")
    sentence = storage.explain_os_error(error)
    assert words in sentence and "/some/file" in sentence
