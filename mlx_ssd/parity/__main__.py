"""`python -m mlx_ssd.parity RUN`: every part in turn, in a process of its own.

On Linux the BLAS library must be in place before a process starts, and a Metal out-of-memory abort ends one.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)  # until it can be caught; the parent sends it again

from mlx_ssd.machine.float32 import keep_float32_whole

keep_float32_whole()  # before MLX is imported

import argparse
import importlib.metadata
import sys
import tempfile
from pathlib import Path

from mlx_ssd import machine, parity
from mlx_ssd.child import exit_code
from mlx_ssd.export.source import Source, source_of
from mlx_ssd.parity.subject import subject_of
from mlx_ssd.progress import progress
from mlx_ssd.storage import write_json


def measure(source: Source, path: Path) -> None:
    """Write parity.json. A row that fails is a result too."""
    subject = subject_of(source)
    rows, left_out = [], []
    with tempfile.TemporaryDirectory() as work, progress("parity", len(parity.PARTS), 0, "parts") as bar:
        for number, name in enumerate(parity.PARTS):
            part = importlib.import_module(f"mlx_ssd.parity.{name}")
            if reason := part.left_out(subject):
                left_out.append({"part": name, "why": reason})
            else:
                rows += part.rows(subject, Path(work))
            bar.update(number + 1)
    facts = {"v": 1, "name": source.name, "model": source.recipe.model.path, "base_revision": source.base.revision}
    versions = machine.versions() | {"torch": importlib.metadata.version("torch")}
    facts |= {"student": source.revision, "way": subject.way, "versions": versions}
    facts |= {"machine": machine.describe(), "texts": {"count": len(subject.texts), "from": subject.origin}}
    facts |= {"rows": [row.facts for row in rows], "left_out": left_out}
    failed = any(row.verdict == "fail" for row in rows)
    write_json(path, facts | {"verdict": "fail" if failed else "pass"})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--arm", required=True)
    parser.add_argument("--result", type=Path, required=True)
    arguments = parser.parse_args()
    return exit_code(lambda: measure(source_of(arguments.run, arguments.arm), arguments.result))


if __name__ == "__main__":
    sys.exit(main())
