"""What this project does on a Mac, in one command of about 20 minutes: `make mac-check`.

    python -m benchmarks.mac_check [--only STEP] [--skip STEP] [--work DIR]

Each step has its time; one that fails or takes longer does not keep the others from being made. DIR/mac-check.json and
mac-check.md, for a bug report or the README, are whole after each step.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import journal
from mlx_ssd.layout import RunFiles
from mlx_ssd.progress import duration
from mlx_ssd.storage import read_json, write_atomic, write_json

ROOT = Path(__file__).parents[1]
PROGRAMS = {
    "mlx-ssd": (sys.executable, "-P", "-c", "from mlx_ssd.cli import main; main()"),
    "python": (sys.executable,),
}
PATIENCE = 10.0  # seconds between Ctrl-C and SIGKILL
TAIL = 40  # lines
# The real model through every stage, with as little to do as shows that each works.
LITTLE = (
    "problems.train.limit=4",
    "problems.test.limit=4",
    "sample.max_tokens=192",
    "train.rows_per_step=2",
    "evaluate.samples_per_problem=1",
    "evaluate.pass_at=[1]",
    "evaluate.max_tokens=192",
)
FAILED = ("failed", "out of time", "interrupted")


@dataclass(frozen=True)
class Step:
    """A command, its first word one of PROGRAMS, `{work}` the folder of the results. `run` names the run directory in
    there that it makes."""

    name: str
    what: str
    seconds: int
    command: tuple[str, ...]
    run: str = ""


MODEL = "mac-4b-check"
DOWNLOAD = f"from mlx_ssd import Recipe, models; models.locate(Recipe.load({MODEL!r}).model)"
STEPS = (
    Step("doctor", "is this machine fit", 30, ("mlx-ssd", "doctor")),
    Step("tests", "the tests that need a Mac", 240, ("python", "-m", "pytest", "-q", "-m", "mac")),
    Step(
        "quickstart", "the whole loop on the embedded model", 360,
        ("mlx-ssd", "run", "quickstart", "--out", "{work}/quickstart"), "quickstart",
    ),
    Step(
        "bench", "speed and memory of base, adapter and fused", 120,
        ("mlx-ssd", "bench", "{work}/quickstart", "-p", "128", "-n", "64", "-r", "3", "-o", "md"),
    ),
    # By itself: what the hub's client has fetched of a file is lost where it is ended.
    Step("download", "the 4B model, 2.3 GB, once", 7200, ("python", "-c", DOWNLOAD)),
    Step(
        "smoke", "a 4B model in 4 bits through every stage", 450,
        (
            "mlx-ssd", "run", MODEL, "--yes", "--out", "{work}/smoke",
            *(part for setting in LITTLE for part in ("--set", setting)),
        ),
        "smoke",
    ),
)  # fmt: skip


def check(work: Path, steps: Sequence[Step]) -> dict[str, Any]:
    """Make the steps in turn and write what came of them; the facts of mac-check.json."""
    work.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"v": 1, "mac": sys.platform == "darwin", **journal.provenance("mac_check")}
    if facts["mac"]:
        facts["macos"] = platform.mac_ver()[0]
    facts["steps"] = []
    for step in steps:
        print(f"mac-check: {step.name}, {step.what}; at most {duration(step.seconds)}", flush=True)
        done = make(step, work)
        print(f"mac-check: {step.name} {done['outcome']}, {duration(done['seconds'])}", flush=True)
        facts["steps"].append(done)
        write_json(work / "mac-check.json", facts)
        write_atomic(work / "mac-check.md", page(facts))
        if done["outcome"] == "interrupted":
            break
    return facts


def make(step: Step, work: Path) -> dict[str, Any]:
    """Run a step to its end or to the end of its time. What it says goes to WORK/NAME.log."""
    program, *arguments = (part.replace("{work}", str(work)) for part in step.command)
    log, started = work / f"{step.name}.log", time.monotonic()
    with open(log, "wb") as said:
        # A session of its own: all that it started can be ended with it.
        process = subprocess.Popen(
            [*PROGRAMS[program], *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code, outcome = process.wait(step.seconds), ""
        except subprocess.TimeoutExpired:
            code, outcome = end(process), "out of time"
        except KeyboardInterrupt:
            code, outcome = end(process), "interrupted"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    if not outcome:
        outcome = "passed" if code == 0 else "failed"
        if code == 2 and any("No such command" in line for line in lines):
            outcome = "missing"  # this version does not have it
        elif code == 0 and lines and re.match(r"\d+ skipped", lines[-1]):
            outcome = "skipped"  # by pytest, all of it: this is no Mac
    found = {"name": step.name, "what": step.what, "outcome": outcome, "code": code}
    found |= {"seconds": round(time.monotonic() - started, 1), "limit_seconds": step.seconds}
    found |= {"command": shlex.join([program, *arguments]), "tail": lines[-TAIL:]}
    return found | (figures(work / step.run) if step.run else {})


def end(process: subprocess.Popen) -> int:
    """Ctrl-C to it and all that it started, then SIGKILL."""
    for number in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
    return process.wait()


def figures(run: Path) -> dict[str, Any]:
    """Seconds and peaks of the stages that a run has completed, and pass@1 of its arms; only what is there."""
    files, found = RunFiles(run), {}
    if files.manifest.exists():
        entries = read_json(files.manifest)["stages"]
        measured = {name: entry["measured"] for name, entry in entries.items() if entry["complete"]}
        shown = ("seconds", "peak_rss_bytes", "peak_mlx_bytes")
        found["stages"] = {name: {key: of[key] for key in shown if key in of} for name, of in measured.items()}
    if files.scores.exists():
        scores = read_json(files.scores)["scores"]
        found["pass_at_1"] = {score["arm"]: score["pass_at"]["1"] for score in scores if "1" in score["pass_at"]}
    return found


def page(facts: dict[str, Any]) -> str:
    """mac-check.md"""
    machine = facts["machine"]
    where = f"macOS {facts['macos']}" if facts["mac"] else f"{machine['system']}, **no Mac**"
    memory = f"{machine['memory_bytes'] / 2**30:.0f} GB"
    lines = ["# mac-check", "", f"{machine['chip']}, {machine['cores']} cores, {memory}, {where}; {facts['started']}, "]
    lines[-1] += f"commit {facts['commit']}."
    lines += ["Versions: " + ", ".join(f"{name} {version}" for name, version in facts["versions"].items()) + ".", ""]
    lines += ["| step | what | outcome | took | at most |", "|---|---|---|---|---|"]
    for step in facts["steps"]:
        took, most = duration(step["seconds"]), duration(step["limit_seconds"])
        lines.append(f"| {step['name']} | {step['what']} | {step['outcome']} | {took} | {most} |")
    for step in facts["steps"]:
        if step.get("stages"):
            lines += ["", f"## {step['name']}: stages", ""]
            lines += ["| stage | seconds | process GB | MLX GB |", "|---|---|---|---|"]
            for name, of in step["stages"].items():
                sizes = (f"{of[key] / 1e9:.2f}" if key in of else "" for key in ("peak_rss_bytes", "peak_mlx_bytes"))
                lines.append(f"| {name} | {of['seconds']} | {' | '.join(sizes)} |")
        if step.get("pass_at_1"):
            lines += ["", f"## {step['name']}: pass@1", "", "| | pass@1 | 95 % |", "|---|---|---|"]
            for arm, value in step["pass_at_1"].items():
                lines.append(f"| {arm} | {value['mean']:.3f} | {value['low']:.3f} to {value['high']:.3f} |")
    for step in facts["steps"]:
        lines += ["", f"## {step['name']}: the end of what it said", "", f"    $ {step['command']}"]
        lines += [f"    {line}" for line in step["tail"]]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """1 where a step failed, 130 where Ctrl-C ended it."""
    names = [step.name for step in STEPS]
    parser = argparse.ArgumentParser(prog="mac-check", description=__doc__.split("\n")[0])
    for option, does in (("--only", "make this step alone"), ("--skip", "leave this step out")):
        parser.add_argument(option, action="append", choices=names, default=[], help=f"{does}; may be repeated")
    parser.add_argument("--work", type=Path, default=Path("runs/mac-check"), help="usually runs/mac-check")
    options = parser.parse_args(arguments)
    chosen = [step for step in STEPS if step.name in (options.only or names) and step.name not in options.skip]
    if not chosen:
        parser.error("every step is left out")
    facts = check(options.work.absolute(), chosen)
    print(f"mac-check: {options.work / 'mac-check.md'} and .json are written")
    outcomes = [step["outcome"] for step in facts["steps"]]
    return 130 if "interrupted" in outcomes else int(any(outcome in FAILED for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
