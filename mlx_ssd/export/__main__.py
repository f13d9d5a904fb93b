"""`python -m mlx_ssd.export RUN TARGET`: write and verify one export, in a process of its own.

On Linux the BLAS library must be in place before a process starts, and a Metal out-of-memory abort ends one.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)  # until it can be caught; the parent sends it again

from mlx_ssd.machine.float32 import keep_float32_whole

keep_float32_whole()  # before MLX is imported

import argparse
import contextlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlx_ssd import export
from mlx_ssd.child import exit_code
from mlx_ssd.errors import WorkFailed
from mlx_ssd.export import Target, card, preset, swift
from mlx_ssd.export.grading import failure, grade_export
from mlx_ssd.export.reference import Reference, reference_of
from mlx_ssd.export.source import Source, source_of
from mlx_ssd.export.verify import verify
from mlx_ssd.problems import OtherProblems
from mlx_ssd.progress import progress
from mlx_ssd.storage import atomic_directory, read_json, remove, write_json


def make(source: Source, name: str, precision: str, grade: bool = False) -> None:
    """Write RUN/export/NAME, verified. One that fails is not put in place; what was measured of it is."""
    target = export.get(name)
    folder = source.exports / export.folder_name(name, precision)
    failed = folder.with_name(f"{folder.name}.failed.json")
    export.check_memory(source, name)
    reference = reference_of(source)
    with atomic_directory(folder) as partial, removed_on_failure(partial):
        with progress(f"export {folder.name}", 1, 0, "tensors") as bar:

            def report(done: int, total: int) -> None:
                bar.total = total
                bar.update(done)

            target.write(source, partial, precision, report)
            bar.done = bar.total
        facts = measured(source, target, name, partial, precision, reference, grade)
        if facts["failures"]:
            write_json(failed, facts)
            raise WorkFailed(f"{folder.name} was not exported: {'; '.join(facts['failures'])} (all figures: {failed})")
        write_json(partial / "verify.json", facts)
        card.write(source, name, precision, partial, facts)
    swift.write(source, name, folder.name)
    remove(failed)


@contextlib.contextmanager
def removed_on_failure(folder: Path) -> Iterator[None]:
    """Gigabytes of an export that failed are of no use, and a full disk needs the room."""
    try:
        yield
    except BaseException:
        remove(folder)
        raise


def check(source: Source, name: str, precision: str, grade: bool = False) -> None:
    """Verify an export that is there, as it is. Its verify.json stays, but for what grading finds."""
    target = export.get(name)
    folder = source.exports / export.folder_name(name, precision)
    export.check_memory(source, name)
    facts = measured(source, target, name, folder, precision, reference_of(source), grade)
    if facts["failures"]:
        raise WorkFailed(f"{folder} does not hold: {'; '.join(facts['failures'])}")
    if "graded" in facts:
        write_json(folder / "verify.json", read_json(folder / "verify.json") | {"graded": facts["graded"]})


def measured(
    source: Source, target: Target, name: str, folder: Path, precision: str, reference: Reference, grade: bool
) -> dict[str, Any]:
    """The facts of verify.json; with `grade`, of what passes, the problems that it solves too."""
    facts = verify(source, target, name, folder, precision, reference)
    if not grade or facts["failures"]:
        return facts
    found = grade_export(source, target, name, folder, precision)
    if found is None:
        print(f"note: --grade: nothing draws from {name} in batches here, so it was not graded", file=sys.stderr)
        return facts
    failures = [reason] if (reason := failure(found)) else []
    return facts | {"graded": found, "failures": failures, "verdict": "fail" if failures else "pass"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("target")
    parser.add_argument("precision")
    parser.add_argument("--arm", required=True)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--grade", action="store_true")
    arguments = parser.parse_args()
    work = check if arguments.check else make
    if arguments.target == export.PRESET:
        work = preset.check if arguments.check else preset.make
        return exit_code(lambda: work(arguments.run, arguments.arm))
    warnings.simplefilter("ignore", OtherProblems)  # the run's own stages have said it
    source = (arguments.run, arguments.arm)
    return exit_code(lambda: work(source_of(*source), arguments.target, arguments.precision, arguments.grade))


if __name__ == "__main__":
    sys.exit(main())
