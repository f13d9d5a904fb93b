"""What is survived: runs with a fault at a random moment, against the same run without one.

    python -m benchmarks.reliability faults     # 42 runs: seven faults in each long stage, twice
    python -m benchmarks.reliability limit      # a sample stage under a real limit of memory (root, control group v1)

The run is a small quickstart on the wheel's own BLAS, whose results do not depend on the batch; the stage is begun anew
in a copy of it, and all files of the copy are compared at the end. Rows go to results/reliability.jsonl, the table to
results/reliability.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import psutil

from benchmarks import journal
from benchmarks.commands import Command, settings
from benchmarks.control_group import control_group, refusal
from benchmarks.journal import Row
from benchmarks.reliability_report import render
from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.stages import get, units
from mlx_ssd.storage import hash_path, read_json, remove, write_json

NAME = "reliability"
GROWS = {"sample": "round-1/samples.jsonl", "train": "round-1/train_log.jsonl", "evaluate": "eval/*/*.jsonl"}
FAULTS = ("SIGKILL", "SIGSEGV", "SIGABRT", "allocation", "disk full", "hang", "parent killed")
LIMITED = ("allocation", "disk full")  # from outside: only Linux lets another process's limits be set
LOADING = 0.25  # of the moments lie before the stage has written anything
DISK_BYTES = 32 << 20
HANG_SECONDS = 6


def faults(options: argparse.Namespace) -> Iterator[Row]:
    """Each fault in each long stage, `rounds` times; `--go-on` leaves out what is measured already."""
    possible = [fault for fault in FAULTS if fault not in LIMITED or hasattr(resource, "prlimit")]
    wanted, measured = product(range(options.rounds), GROWS, options.fault or possible), known(options)
    missing = [key for key in wanted if key not in measured]
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder, small_disk(Path(folder)) as disk:
        work = Path(folder)
        whole = RunFiles(work / "whole")
        command = Command.start(["run", "quickstart", "--out", str(whole.directory), *settings()], work / "whole.log")
        if command.wait():
            raise WorkFailed(f"the run without faults failed: {command.said(whole.directory)}")
        for number, stage, fault in missing:
            generator = random.Random(f"{options.seed} {number} {stage} {fault}")
            place = disk if fault == "disk full" and disk else work
            yield {"round": number, **one(whole, place / "faulty", work / "log", stage, fault, generator)}


def known(options: argparse.Namespace) -> set[tuple[int, str, str]]:
    """What an earlier command has measured, where this one is to go on from it."""
    rows = journal.read(options.out / f"{NAME}.jsonl") if options.go_on else []
    return {(row["round"], row["stage"], row["fault"]) for row in rows if row["experiment"] == "faults"}


def one(whole: RunFiles, directory: Path, log: Path, stage: str, fault: str, generator: random.Random) -> Row:
    """A run of which that stage is to be done, with a fault in it; and the scores where they come of it."""
    remove(directory)
    files = RunFiles(Path(shutil.copytree(whole.directory, directory)))
    forget(files, stage, *["score"] * (stage == "evaluate"))
    arguments = [stage, str(directory), *settings()]
    environment = {"MLX_SSD_HANG_SECONDS": str(HANG_SECONDS)} if fault == "hang" else {}
    if fault == "disk full":
        environment["MLX_SSD_DISK_RESERVE_MB"] = "0.5"
    moment = generator.random()
    began = time.monotonic()
    command = Command.start(arguments, log, **environment)
    hit = strike(command, whole, directory, stage, fault, moment, generator)
    codes, orphans = [command.wait()], command.orphans()
    said = command.said(directory)
    filler(directory).unlink(missing_ok=True)
    if codes[0]:
        again = Command.start(arguments, log, **environment)
        codes.append(again.wait())
        orphans += again.orphans()
        said += again.said(directory)
    if stage == "evaluate":
        codes.append(Command.start(["score", str(directory), *settings()], log, **environment).wait())
    entries = read_json(files.manifest)["stages"].values()
    failures = [failure for entry in entries for failure in entry.get("failures", [])]
    row = {"stage": stage, "fault": fault, "moment": round(moment, 3), "hit": hit, "exit_codes": codes, "said": said}
    row |= {"failures": len(failures), "differs": differences(whole, files), "orphans": orphans}
    return row | {"seconds": round(time.monotonic() - began, 1), "load": round(os.getloadavg()[0], 1)}


def strike(
    command: Command, whole: RunFiles, directory: Path, stage: str, fault: str, moment: float, generator: random.Random
) -> bool:
    """Wait for the moment and bring about the fault; whether the stage was still at work."""
    while (process := command.stage(stage)) is None and command.process.poll() is None:
        time.sleep(0.02)
    if moment < LOADING:
        time.sleep(moment / LOADING * 2.0)  # it takes about so long to load
    else:
        share = (moment - LOADING) / (1 - LOADING)
        expected = share * size_of(whole.directory, GROWS[stage])
        while size_of(directory, GROWS[stage]) < expected and command.process.poll() is None:
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.1))
    process = command.stage(stage)  # evaluate has one for each arm
    if process is None:
        return False
    try:
        if fault == "disk full":
            fill(directory, process.pid)
        elif fault == "parent killed":
            command.process.kill()
        elif fault == "allocation":
            limit = process.memory_info().vms  # not one page more
            resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        else:
            process.send_signal(signal.SIGSTOP if fault == "hang" else signal.Signals[fault])
    except (psutil.Error, ProcessLookupError):
        return False
    return True


def fill(directory: Path, pid: int) -> None:
    """The small disk to its last byte; without one, the limit of a file's size, which the kernel refuses alike."""
    if not os.path.ismount(directory.parent):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        return
    with contextlib.suppress(OSError), open(filler(directory), "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))


def filler(directory: Path) -> Path:
    return directory.with_name("filler")


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A file system in memory, where root may mount one."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield disk if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)


def forget(files: RunFiles, *stages: str) -> None:
    """Take a finished run back to where `stages` have not begun."""
    manifest = read_json(files.manifest)
    for unit in units(Recipe.load(files.recipe), files.directory):
        if unit.stage in stages:
            for path in get(unit.stage).outputs(unit.recipe, unit.files):
                remove(path)
            del manifest["stages"][unit.name]
    write_json(files.manifest, manifest)


def size_of(directory: Path, pattern: str) -> int:
    return sum(file.stat().st_size for file in directory.glob(pattern))


def differences(whole: RunFiles, files: RunFiles) -> list[str]:
    """What is not as in the run without faults: the order of a journal's lines means nothing, their number does."""
    found = []
    for pattern in (GROWS["sample"], GROWS["evaluate"]):
        for path in whole.directory.glob(pattern):
            name = path.relative_to(whole.directory)
            other = files.directory / name
            if not other.exists() or sorted(other.read_text().splitlines()) != sorted(path.read_text().splitlines()):
                found.append(str(name))
    for name in ("adapter", "training_log", "scores"):
        own, other = getattr(whole, name), getattr(files, name)
        if not other.exists() or hash_path(own) != hash_path(other):
            found.append(name)
    return found


def limit(options: argparse.Namespace) -> Iterator[Row]:
    """Sampling with more rows than there is room for: as much as the group allows, and with a budget beyond it."""
    if reason := refusal():
        raise BadInput(f"limit: {reason}")
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        for megabytes in options.megabytes:
            for asked in (None, 8):
                yield limited(Path(folder) / "run", Path(folder) / "log", megabytes, asked)


def limited(directory: Path, log: Path, megabytes: int, asked: float | None) -> Row:
    remove(directory)
    big = {"problems.train.limit": 480, "sample.samples_per_problem": 4, "sample.rows": 4096}
    big |= {"sample.memory_gb": "null" if asked is None else asked}
    arguments = ["sample", str(directory), *settings(**big)]
    began = time.monotonic()
    with control_group(megabytes << 20) as group:
        command = Command.start(arguments, log, group.command, MLX_SSD_BLAS="open")
        code = command.wait()
        command.orphans()
        row = {"limit_bytes": megabytes << 20, "peak_bytes": group.peak_bytes(), "kills": group.kills()}
    entry = read_json(RunFiles(directory).manifest)["stages"]["sample"]
    row |= {"asked_gb": asked, "exit_codes": [code], "said": command.said(directory)}
    samples = RunFiles(directory).samples.read_text().splitlines()
    row |= {"failures": len(entry.get("failures", [])), "samples": len(samples)}
    return row | {"seconds": round(time.monotonic() - began, 1), "load": round(os.getloadavg()[0], 1)}


EXPERIMENTS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {"faults": faults, "limit": limit}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="+")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--fault", action="append", choices=FAULTS, help="only this one")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[400, 600])
    parser.add_argument("--go-on", action="store_true", help="leave out the faults that OUT/reliability.jsonl has")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=journal.RESULTS)

    def run(options: argparse.Namespace) -> None:
        common = journal.provenance(NAME)
        for name in options.experiment:
            rows = ({**common, "experiment": name, **row} for row in EXPERIMENTS[name](options))
            shown = ("stage", "fault", "moment", "hit", "exit_codes", "failures", "differs", "orphans", "seconds")
            shown += ("limit_bytes", "peak_bytes", "kills", "asked_gb", "samples", "said")
            journal.append(NAME, options.out, rows, render, shown)

    return journal.start(NAME, parser, EXPERIMENTS, run)


if __name__ == "__main__":
    sys.exit(main())
