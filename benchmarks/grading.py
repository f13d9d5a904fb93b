"""What grading costs, apart from the programs themselves.

    python -m benchmarks.grading [tests endless]

tests    tests a second of a trivial script, ten to a program and each in a process of its own, on two workers, against
         one fresh `python` a test, two at a time; contestants take turns
endless  1,000 programs of which 5 % never end, with a limit of 2 s: the time of all, against what the limits
         themselves cost (endless programs x limit / workers)

Rows are appended to OUT/grading.jsonl and rendered into OUT/grading.md. No model and no MLX take part.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from benchmarks import journal
from benchmarks.journal import RESULTS, Row
from benchmarks.rounds import newest_runs, pick, ratio, seconds, spread, table_row, wanted_table, whole_rounds
from mlx_ssd.grading import Limits, ProcessSandbox, check_canaries, grade_many

OURS, FRESH = "mlx-ssd", "a fresh python a test"
LIMITS = Limits(wall_seconds=10.0, cpu_seconds=10.0, memory_mb=1024, output_kb=1024, processes=16)
SCRIPT = "print(2 * int(input()))"
TESTS_A_PROGRAM = 10
ENDLESS_SHARE, ENDLESS_LIMIT = 0.05, 2.0
SHOWN = ("experiment", "engine", "round", "tests", "programs", "endless", "seconds", "processor_seconds", "load")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="*", metavar="experiment", help="of tests, endless; both")
    parser.add_argument("--tests", type=int, default=2000, help="a round of ours; a tenth as many fresh interpreters")
    parser.add_argument("--programs", type=int, default=1000, help="of `endless`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for grading.{jsonl,md}")
    return parser


def run(options: argparse.Namespace) -> None:
    """Append the rows of the chosen experiments to OUT/grading.jsonl, and render all that it holds."""
    journal.append("grading", options.out, _rows(options), render, SHOWN)


def _rows(options: argparse.Namespace) -> Iterator[Row]:
    common = {"model": "trivial programs", "workers": options.workers, "cores": os.cpu_count()}
    common |= ProcessSandbox().mechanisms() | journal.provenance("grading")
    if "tests" in (options.experiment or ["tests"]):
        for number in range(options.rounds):
            turns = [(_ours, options.tests), (_fresh, max(1, options.tests // 10))]
            for take, tests in turns if number % 2 == 0 else reversed(turns):
                yield {"experiment": "tests", "round": number, **take(tests, options.workers), **common}
    if "endless" in (options.experiment or ["endless"]):
        yield {"experiment": "endless", "round": 0, **_endless(options.programs, options.workers), **common}


def _ours(tests: int, workers: int) -> Row:
    check_canaries(ProcessSandbox(), LIMITS)  # another one: a canary that never ends is no work of ours
    sandbox = ProcessSandbox()
    lines = [{"stdin": f"{i}\n", "stdout": f"{2 * i}\n"} for i in range(TESTS_A_PROGRAM)]
    programs = max(1, tests // TESTS_A_PROGRAM)
    items = [(i, f"{SCRIPT}  # {i}", None, lines) for i in range(programs)]
    with _measured() as row:
        verdicts = [verdict.verdict for _, verdict in grade_many(items, LIMITS, sandbox, workers)]
        del sandbox  # the time of its processes is known when they are gone
    assert verdicts == ["pass"] * programs
    return {"engine": OURS, "tests": programs * TESTS_A_PROGRAM, **row}


def _fresh(tests: int, workers: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "program.py"
        script.write_text(SCRIPT)

        def test(i: int) -> str:
            command = [sys.executable, str(script)]
            done = subprocess.run(command, input=f"{i}\n", capture_output=True, text=True, timeout=LIMITS.wall_seconds)
            return done.stdout

        with _measured() as row, ThreadPoolExecutor(workers) as pool:
            printed = list(pool.map(test, range(tests)))
    assert printed == [f"{2 * i}\n" for i in range(tests)]
    return {"engine": FRESH, "tests": tests, **row}


def _endless(programs: int, workers: int) -> Row:
    endless = set(random.Random(0).sample(range(programs), round(ENDLESS_SHARE * programs)))
    lines = [{"stdin": "1\n", "stdout": "2\n"}]
    items = [(i, f"{'while True: pass' if i in endless else SCRIPT}  # {i}", None, lines) for i in range(programs)]
    limits = replace(LIMITS, wall_seconds=ENDLESS_LIMIT)
    check_canaries(ProcessSandbox(), limits)
    sandbox = ProcessSandbox()
    with _measured() as row:
        verdicts = dict(grade_many(items, limits, sandbox, workers))
        del sandbox
    assert all(verdicts[i].verdict == ("timeout" if i in endless else "pass") for i in range(programs))
    return {"engine": OURS, "programs": programs, "endless": len(endless), "limit": ENDLESS_LIMIT, **row}


class _measured:
    """A context whose row holds wall and processor time, of this process and of the children that it waited for."""

    def __enter__(self) -> Row:
        self._row: Row = {"load": round(os.getloadavg()[0], 1)}
        self._started = time.perf_counter(), _processor_seconds()
        return self._row

    def __exit__(self, *_) -> None:
        started, processor = self._started
        self._row["seconds"] = time.perf_counter() - started
        self._row["processor_seconds"] = _processor_seconds() - processor


def _processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


# ---------------------------------------------------------------- what the documents quote


def table(rows: Sequence[Row]) -> str:
    """Markdown for docs/benchmarks.md: what was measured, against what, how much was wanted, and what came out."""
    lines = []
    for run_rows in newest_runs(rows):
        if run_rows[0]["experiment"] == "tests":
            ours, fresh = _turns(run_rows)
            lines.append(("tests a second", FRESH, "10", ratio(fresh, ours, _a_test)))
            lines.append(("processor time a test, of theirs", "the same", "", ratio(ours, fresh, _processor_a_test)))
        else:
            found = spread([row["seconds"] / _of_limits(row) for row in run_rows]).split()[0]
            what = f"{run_rows[0]['programs']:,} programs, {run_rows[0]['endless']} of them endless"
            lines.append((f"time of {what}", "what their limits cost", "at most 1.3", found))
    return wanted_table(lines)


def render(rows: Sequence[Row]) -> str:
    out = ["# Grading: all figures of the newest runs", ""]
    for run_rows in newest_runs(rows):
        row = run_rows[0]
        loads = [r["load"] for r in run_rows]
        out += [f"## {row['experiment']}, {row['machine']['chip']}", ""]
        out += [f"`{row['command']}`, {row['started']}, commit {row['commit']}, Python {row['versions']['python']},"]
        out += [f"{row['workers']} workers, {row['cores']} cores, load {min(loads)} to {max(loads)}.", ""]
        out += ["| engine | round | done | seconds | a second | processor ms each |", "|---|---|---|---|---|---|"]
        for r in run_rows:
            done = r.get("tests") or r["programs"]
            each = 1000 * r["processor_seconds"] / done
            cells = [r["engine"], r["round"], done, f"{r['seconds']:.2f}", f"{done / r['seconds']:,.0f}", f"{each:.2f}"]
            out.append(table_row([str(cell) for cell in cells]))
        out.append("")
    return "\n".join([*out, table(rows), ""])


def _turns(run_rows: list[Row]) -> tuple[list[Row], list[Row]]:
    whole = whole_rounds(run_rows, "engine")
    return pick(whole, engine=OURS), pick(whole, engine=FRESH)


def _a_test(row: Row) -> float:
    return seconds(row) / row["tests"]


def _processor_a_test(row: Row) -> float:
    return row["processor_seconds"] / row["tests"]


def _of_limits(row: Row) -> float:
    return row["endless"] * row["limit"] / row["workers"]


if __name__ == "__main__":
    run(make_parser().parse_args())
