"""Files of a sandbox: its compiled modules, inputs that a program reads, directories that it may have made anything
of."""

import contextlib
import importlib.util
import marshal
import os
import py_compile
import secrets
import sys
import tempfile


def file_of(data: bytes) -> int:
    """Descriptor of a file without a name that holds `data`, at its beginning."""
    if sys.platform == "linux":
        fd = os.memfd_create("input")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def compile_whole(path: str) -> None:
    """Leave a module's compiled form in its __pycache__, whole or not at all.

    py_compile alone leaves the beginning of it where the disk is full, and the module can then no longer be imported.
    """
    compiled = importlib.util.cache_from_source(path)
    with contextlib.suppress(OSError):  # an installation that cannot be written
        if _is_compiled(path, compiled):
            return
        os.makedirs(os.path.dirname(compiled), exist_ok=True)
        with tempfile.TemporaryDirectory(dir=os.path.dirname(compiled)) as beside:
            new = os.path.join(beside, os.path.basename(compiled))
            # Not by a hash, as py_compile chooses where SOURCE_DATE_EPOCH is set.
            py_compile.compile(path, cfile=new, invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)
            if _is_compiled(path, new):
                os.replace(new, compiled)


def _is_compiled(path: str, compiled: str) -> bool:
    """Whether `compiled` is the source at `path` as it is, all of it."""
    if not os.path.exists(compiled):
        return False
    with open(compiled, "rb") as file:
        data = file.read()
    source = os.stat(path)
    of = (int(source.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little") + (source.st_size & 0xFFFFFFFF).to_bytes(4, "little")
    if data[:16] != importlib.util.MAGIC_NUMBER + bytes(4) + of:
        return False
    try:
        marshal.loads(data[16:])
    except (EOFError, ValueError, TypeError):
        return False
    return True


def remove_tree(top: str) -> None:
    """Removes a hostile directory, be it made unreadable or nested deeper than recursion or open files allow.

    Each directory's subdirectories are first moved up to `top`, so no path is ever deep. What cannot be
    removed stays.
    """
    pending, moved = [top], 0
    with contextlib.suppress(OSError):
        while pending:
            directory = pending.pop()
            os.chmod(directory, 0o700)
            for entry in list(os.scandir(directory)):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                elif directory == top:
                    pending.append(entry.path)
                else:
                    moved += 1
                    target = os.path.join(top, f".moved-{moved}-{secrets.token_hex(4)}")
                    os.chmod(entry.path, 0o700)  # moving a directory writes its ".."
                    os.rename(entry.path, target)
                    pending.append(target)
            if directory != top:
                os.rmdir(directory)
        os.rmdir(top)
