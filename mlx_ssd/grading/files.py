"""Files of a sandbox: inputs that a program reads, directories that it may have made anything of."""

import contextlib
import os
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
