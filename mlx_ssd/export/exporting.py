"""`mlx-ssd export`: the targets one after the other, each in a process of its own, and what came of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlx_ssd import export, machine
from mlx_ssd.errors import BadInput, Interrupted, SsdError, WorkFailed
from mlx_ssd.export import preset
from mlx_ssd.export.source import Source, source_of
from mlx_ssd.grading.levels import check_level
from mlx_ssd.storage import read_json, run_lock
from mlx_ssd.supervision import supervise


def export_run(
    directory: Path,
    wanted: Sequence[tuple[str, str | None]],
    arm: str,
    force: bool = False,
    check: bool = False,
    grade: bool = False,
) -> list[dict[str, Any]]:
    """Write (or `check`) each of (target, precision or None for the usual one), and `grade` it; the facts of their
    verify.json.

    All is asked before anything is written. Raises BadInput for what cannot be exported, or is there already and is
    not to be replaced (`force`), WorkFailed where an export did not keep what it should, after all have been tried.
    """
    source = source_of(directory, arm)
    if grade:
        check_level(source.recipe.evaluate.sandbox)
    chosen = [(name, _precision(name, precision)) for name, precision in wanted]
    for name, precision in chosen:
        if reason := export.get(name).refuse(source.config, source.adapter_config):
            raise BadInput(f"--target {name}: {reason}")
        export.check_memory(source, name)
        folder = folder_of(source, name, precision)
        if check and not folder.exists():
            raise BadInput(f"{folder} does not exist; leave out --check to write it")
        if not check and not force and folder.exists():
            raise BadInput(f"{folder} exists; give --force to replace it, or --check to verify it as it is")
    machine.keep_awake()
    options = [option for option, given in (("--check", check), ("--grade", grade)) if given]
    failed = 0
    with run_lock(directory) as lock:
        for name, precision in chosen:
            failed += not _in_a_process(directory, source.files.arm, name, precision, options, lock)
    if failed:
        raise WorkFailed(f"{failed} of {len(chosen)} exports failed, see above" if len(chosen) > 1 else "")
    return [read_json(folder_of(source, *one) / "verify.json") for one in chosen]


def export_preset(directory: Path, arm: str, force: bool = False, check: bool = False) -> dict[str, Any]:
    """Write (or `check`) the base's decoding rule as a sampler: of a run, trained or not, or of a probe's folder.

    Raises as `export_run`.
    """
    preset.rule_of(directory, arm)
    folder = preset.folder_of(directory, arm)
    if check and not folder.exists():
        raise BadInput(f"{folder} does not exist; leave out --check to write it")
    if not check and not force and folder.exists():
        raise BadInput(f"{folder} exists; give --force to replace it, or --check to verify it as it is")
    with run_lock(directory) as lock:
        if not _in_a_process(directory, arm, export.PRESET, "float32", ["--check"] * check, lock):
            raise WorkFailed("")
    return read_json(folder / "verify.json")


def folder_of(source: Source, name: str, precision: str) -> Path:
    return source.exports / export.folder_name(name, precision)


def place(directory: Path, arm: str, name: str, precision: str = "float32") -> Path:
    """The folder of an export, as it is told to the user."""
    folder = preset.folder_of(directory, arm)
    return folder if name == preset.NAME else folder.parent / export.folder_name(name, precision)


def all_targets(directory: Path, arm: str, replace: bool = True) -> tuple[list[tuple[str, None]], list[str]]:
    """(what can be written here, why each other is not); without `replace` what is there is left out."""
    source, wanted, notes = source_of(directory, arm), [], []
    for name in export.TARGETS:
        try:
            reason = export.get(name).refuse(source.config, source.adapter_config)
            export.check_memory(source, name)
        except SsdError as error:
            notes.append(str(error))
            continue
        folder = folder_of(source, name, export.get(name).PRECISIONS[0])
        if reason:
            notes.append(f"--target {name}: {reason}")
        elif folder.exists() and not replace:
            notes.append(f"{folder} is there already; --force replaces it, --check verifies it as it is")
        else:
            wanted.append((name, None))
    return wanted, notes


def _precision(name: str, precision: str | None) -> str:
    known = export.get(name).PRECISIONS
    if precision is not None and precision not in known:
        raise BadInput(f"--precision {precision}: --target {name} has {', '.join(known)}")
    return precision or known[0]


def _in_a_process(
    directory: Path, arm: str, name: str, precision: str, options: Sequence[str], lock: int
) -> bool:
    """Whether it came out well; what went wrong has been said."""
    # -P: no module of the user's current folder may stand in for one of Python's.
    command = [sys.executable, "-P", "-m", "mlx_ssd.export", str(directory), name, precision]
    command += ["--arm", arm, *options]
    again = "the same command begins that export again"
    code = supervise(command, lock, name=f"the export of {name}", directory=directory, again=again)
    if code == 130:
        raise Interrupted("interrupted; nothing half-written is left, the same command begins that export again")
    return code == 0
