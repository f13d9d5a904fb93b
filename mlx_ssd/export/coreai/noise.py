"""What Core AI's packages say that nobody can act on; all else that they say is shown."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator

# The very version that was validated, but for where it was built (2.13.0+cpu).
LOCAL_VERSION = r"coreai-torch has only been validated with torch<=(\S+); found torch \1\+"
WARNINGS = (LOCAL_VERSION, r"`isinstance\(treespec, LeafSpec\)` is deprecated")  # the latter of torch.export itself
NATIVE = re.compile(rb"\s*|ODIE \[default\]: Loading function '.*'")  # whole lines on the error stream


@contextlib.contextmanager
def without_noise() -> Iterator[None]:
    """Of what is written while this lasts, known noise is left out: warnings, the runtime's own lines.
    The packages' progress bars are on standard output, which belongs to our caller."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        for message in WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(_native_filtered())
        yield


@contextlib.contextmanager
def _native_filtered() -> Iterator[None]:
    """The runtime writes to the file descriptor itself: kept aside, then shown without the known lines."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            aside.seek(0)
            for line in aside:
                if not NATIVE.fullmatch(line.rstrip(b"\n")):
                    os.write(2, line)
