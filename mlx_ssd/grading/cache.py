"""Verdicts of programs that were run before, on this machine and with the same grader.

A small model writes the same program again and again, in every arm and every run. A verdict is kept under a hash of
all that it depends on: program, entry point, tests, limits, the interpreter, what the sandbox could enforce, and the
grader's own source, so that nothing has to be remembered when the grader changes. Programs are not kept, only hashes.

`timeout` and `memory` are not kept: a busy machine may have caused them. Nor is `harness_error`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import sys
import warnings
from collections.abc import Hashable
from dataclasses import asdict
from functools import cache
from pathlib import Path

from mlx_ssd.grading.sandbox import Limits
from mlx_ssd.grading.verdict import Verdict
from mlx_ssd.layout import cache_folder

KEPT = ("pass", "wrong", "error")
WAIT_SECONDS = 10.0  # for another process that writes
WRITE_AFTER = 200  # verdicts, in one transaction: a run that grades beside this one waits for no longer


class GradeCache:
    """A context; what was put is on disk after it. Without a usable file it is empty and keeps nothing."""

    def __init__(self, limits: Limits, mechanisms: dict):
        """`mechanisms`: what the sandbox enforces; a program that may read a file can end otherwise than one that may
        not."""
        context = {"limits": asdict(limits), "sandbox": mechanisms, "python": sys.version, "grader": _source()}
        self._context = hashlib.sha256(json.dumps(context, sort_keys=True).encode()).digest()
        self._waiting: dict[bytes, Verdict] = {}
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> GradeCache:
        if folder := cache_folder():
            with self._kept_going():
                folder.mkdir(parents=True, exist_ok=True)
                self._connection = sqlite3.connect(folder / "grades.sqlite", timeout=WAIT_SECONDS)
                self._connection.execute(
                    "CREATE TABLE IF NOT EXISTS grades (key BLOB PRIMARY KEY, verdict TEXT) WITHOUT ROWID"
                )
        return self

    def __exit__(self, *_) -> None:
        self._write()
        if self._connection:
            self._connection.close()

    def key(self, job: Hashable) -> bytes:
        """`job`: program, entry point and whatever tells its tests from others, as its repr does."""
        return hashlib.sha256(self._context + repr(job).encode("utf-8", "surrogatepass")).digest()

    def get(self, key: bytes) -> Verdict | None:
        found = None
        if self._connection:
            with self._kept_going():
                found = self._connection.execute("SELECT verdict FROM grades WHERE key = ?", (key,)).fetchone()
        return Verdict(*json.loads(found[0])) if found else None

    def put(self, key: bytes, verdict: Verdict) -> None:
        if self._connection and verdict.verdict in KEPT:
            self._waiting[key] = verdict
            if len(self._waiting) >= WRITE_AFTER:
                self._write()

    def _write(self) -> None:
        rows = [(key, json.dumps([v.verdict, v.failed_test, v.detail])) for key, v in self._waiting.items()]
        self._waiting = {}
        if self._connection and rows:
            with self._kept_going(), self._connection as transaction:
                transaction.executemany("INSERT OR REPLACE INTO grades VALUES (?, ?)", rows)

    @contextlib.contextmanager
    def _kept_going(self):
        """Grading does not need the cache: one note, and on without it."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            self._connection = None
            warnings.warn(f"grades are not kept for other runs: {cache_folder()}: {error}", stacklevel=3)


@cache
def _source() -> str:
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(here.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
