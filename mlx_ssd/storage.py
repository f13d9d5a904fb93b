"""Files that survive a kill at any moment: journals, atomic writes, hashes and the run lock.

A journal is append-only JSONL. A line counts once its newline is on disk; a torn last line (the
process died while writing) is cut off at the next opening. Anything else that cannot be read is
an error with the line's number: it was not our death that did it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from mlx_ssd.errors import BadInput
from mlx_ssd.records import Record, parse_line

R = TypeVar("R", bound=Record)

FLUSH_SECONDS = 1.0


def fsync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it is fsynced and renamed over `path`,
    on any error it is removed and `path` stays as it was. The suffix is kept, because some
    writers (safetensors) choose the format by it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield beside
        fsync(beside)
        os.replace(beside, path)
        fsync(path.parent)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """Yield a folder beside `target` to write files into; on leaving, it takes `target`'s place.

    Nothing is cleaned up when the body fails: a kill could not do so either, and the next call does.
    """
    partial = target.with_name(f".{target.name}.partial")
    retired = target.with_name(f".{target.name}.retired")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(retired, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    for path in sorted(partial.rglob("*")):
        fsync(path)
    fsync(partial)
    if target.exists():
        # A folder cannot be renamed over a full one; in between there is none, but never half of one.
        os.rename(target, retired)
    os.rename(partial, target)
    fsync(target.parent)
    shutil.rmtree(retired, ignore_errors=True)


def write_atomic(path: Path, text: str) -> None:
    with atomic_path(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not valid JSON ({error}); restore it, or choose another --out") from None


class Journal(Generic[R]):
    """An append-only file of records; `append` returns when they are on disk."""

    def __init__(self, path: Path, kind: type[R]):
        self.path = path
        self.kind = kind

    def read(self) -> list[R]:
        """All whole records, in file order. A torn last line is left out."""
        return list(self.each())

    def each(self) -> Iterator[R]:
        """As `read`, one at a time: a token of a record takes some 40 bytes, and a journal may hold 10^8 of them."""
        if not self.path.exists():
            return
        place = 0
        with open(self.path, "rb") as file:  # lines of bytes end at newlines only; those of text at U+2028 too
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                try:
                    text = line[:-1].decode("utf-8")
                except UnicodeDecodeError as error:
                    where = f"{self.path} is damaged at byte {place + error.start}"
                    raise BadInput(f"{where}; restore or delete it") from None
                place += len(line)
                yield parse_line(self.kind, text, f"{self.path}, line {number}")

    @contextlib.contextmanager
    def appending(self) -> Iterator[Appender]:
        """Open for appending; a torn tail is cut off first."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: a buffered file would try to write a failed line again when it is closed.
        with open(self.path, "ab", buffering=0) as file:
            size = file.tell()
            if size:
                file.truncate(self.path.read_bytes().rfind(b"\n") + 1)
            else:
                fsync(self.path.parent)
            appender = Appender(file)
            try:
                yield appender
            finally:
                appender.flush()  # on Ctrl-C too


class Appender:
    """`append` returns when its records are on disk; `add` lets a record wait, at most about a second
    after the one before it, to share its fsync with others."""

    def __init__(self, file: io.FileIO):
        self._file = file
        self._waiting: list[Record] = []
        self._flushed = time.monotonic()

    def add(self, record: Record) -> None:
        self._waiting.append(record)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._flushed = time.monotonic()
        if waiting:
            self.append(waiting)

    def append(self, records: Iterable[Record]) -> None:
        """Write the records and wait until they are on disk. On a full disk nothing half-written
        stays: the file is cut back to its last whole line."""
        data = memoryview("".join(record.line() for record in records).encode("utf-8"))
        before = os.fstat(self._file.fileno()).st_size
        try:
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fileno(), before)
            error.filename = error.filename or self._file.name
            raise


def write_records(path: Path, records: Iterable[Record]) -> None:
    """A whole file of records at once (not a journal), atomically."""
    write_atomic(path, "".join(record.line() for record in records))


def hash_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def hash_json(value: Any) -> str:
    return hash_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def hash_path(path: Path) -> str:
    """sha256 of a file, or of a folder's relative names and contents."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        return hash_json([[str(p.relative_to(path)), hash_path(p)] for p in files])
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def run_lock(run_dir: Path) -> Iterator[int]:
    """Hold the run directory; yields the lock's file descriptor. The kernel frees the lock when this
    process, and every child that was handed the descriptor, is dead, however they died; the pid inside
    is only for the message."""
    with open(run_dir / ".lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise BadInput(
                f"{run_dir} is in use by process {holder}; wait for it, stop it, or choose another --out"
            ) from None
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield file.fileno()


def explain_os_error(error: OSError) -> str:
    """An operating system error as one sentence with its mend."""
    where = error.filename or "a file of the run"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"no space left to write {where}; free some disk space, then run the same command again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission to use {where}; change its permissions or choose another --out"
    if error.errno == errno.ENOENT:
        return f"{where} does not exist"
    return f"{where}: {error.strerror or error}"
