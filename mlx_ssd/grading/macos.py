"""The macOS half of the process sandbox: a deny profile for sandbox-exec (Seatbelt)."""

import os
import sys
from collections.abc import Sequence


def sandbox_exec(pythons: Sequence[str], readable: Sequence[str], home: str) -> list[str]:
    """The command prefix under which nothing but `home` can be written, users' files cannot be read, and
    there is no network and no program but `pythons`. Rules that come later win."""
    rules = [
        "(version 1)",
        "(allow default)",
        "(deny network*)",
        "(deny process-exec)",
        *(f"(allow process-exec (literal {_quoted(path)}))" for path in pythons),
        "(deny signal)",
        "(allow signal (target same-sandbox))",
        "(deny file-write*)",
        f'(allow file-write* (subpath {_quoted(home)}) (literal "/dev/null"))',
        f"(deny file-read-data {' '.join(f'(subpath {_quoted(path)})' for path in PRIVATE)})",
        *(f"(allow file-read-data (subpath {_quoted(path)}))" for path in [home, *pythons, *readable]),
    ]
    return ["/usr/bin/sandbox-exec", "-p", "\n".join(rules)]


# Users' files, other disks, and where temporary files are.
PRIVATE = ("/Users", "/Volumes", "/private/var/folders", "/private/tmp", "/private/var/tmp")


def interpreters(python: str) -> list[str]:
    """What a start of `python` executes. In a framework build, as python.org's and Homebrew's, bin/python3 does
    nothing but execute the program inside Python.app (CPython's Mac/Tools/pythonw.c)."""
    inner = os.path.join(os.path.realpath(sys.base_prefix), "Resources/Python.app/Contents/MacOS/Python")
    return [python, inner] if os.path.exists(inner) else [python]


def _quoted(path: str) -> str:
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
