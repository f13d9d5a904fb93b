"""Two ranks on loopback: how much faster than one they draw, and what becomes of the samples when one is killed.

    python -m benchmarks.ranks [speed kills]

speed  one BLAS thread a rank: the embedded model's samples drawn by one rank, by two, by one with two threads, which
       is what a single machine would do, and by two that know nothing of each other, half the problems each: what the
       machine's two cores have at the most. Contestants take turns; the time is that of the drawing, in which the
       second of two ranks also has to join and to load the model
kills  KILL -9 (or STOP) of a random process of the two at a random point, a run each time: samples lost, doubled or
       different from those of one rank alone, and the longest time in which nothing reached the journal

Rows are appended to OUT/ranks.jsonl and rendered into OUT/ranks.md. Two cores, otherwise idle.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from benchmarks import journal
from benchmarks.commands import Command
from benchmarks.journal import RESULTS, Row
from benchmarks.rounds import heading, newest_runs, pick, ratio, seconds, table_row, wanted_table, whole_rounds
from benchmarks.turns import turns
from mlx_ssd.distributed import address
from mlx_ssd.errors import WorkFailed

ONE, TWO, THREADS, HALVES = "one rank", "two ranks", "one rank, two threads", "two apart, half each"
WORKER, ITS_PROCESS, RANK_0, STOPPED = "the worker", "the worker's process", "rank 0's process", "the worker, stopped"
VICTIMS = (WORKER, RANK_0, ITS_PROCESS, STOPPED)
SAMPLES, MAX_TOKENS, ROWS = 4, 128, 64  # of `speed`
LONGEST = 30.0  # seconds without a sample after which a run hangs
GIVES_UP = 300.0
SHOWN = ("experiment", "contestant", "victim", "round", "seconds", "tokens", "silence", "lost", "doubled", "differ")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="*", metavar="experiment", help="of speed, kills; both")
    parser.add_argument("--problems", type=int, default=600, help="of `speed`, four samples each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--killed-problems", type=int, default=240, help="of `kills`, one sample each")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for ranks.{jsonl,md}")
    return parser


def run(options: argparse.Namespace) -> None:
    journal.append("ranks", options.out, _rows(options), render, SHOWN)


def _rows(options: argparse.Namespace) -> Iterator[Row]:
    common = {"model": "embedded", "dtype": "float32", "cores": os.cpu_count(), **journal.provenance("ranks")}
    experiments = {"speed": _speed, "kills": _kills}
    for name in options.experiment or experiments:
        for row in experiments[name](options):
            yield common | {"experiment": name} | row


# ---------------------------------------------------------------- speed


def _speed(options: argparse.Namespace) -> Iterator[Row]:
    for number, contestant in turns((ONE, TWO, THREADS, HALVES), options.rounds):
        load = round(os.getloadavg()[0], 1)
        with tempfile.TemporaryDirectory() as folder:
            if contestant == HALVES:
                row = _apart(options.problems, Path(folder))
            else:
                row = _drawn(contestant, options.problems, Path(folder))
        yield {"round": number, "contestant": contestant, "load": load, **row}


def _apart(problems: int, folder: Path) -> Row:
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    half, parts = problems // 2, (folder / "first", folder / "second")
    processes = [
        subprocess.Popen(_draw(part, half, 0, number * half), env=environment, stdout=subprocess.PIPE, text=True)
        for number, part in enumerate(parts)
    ]
    found = [json.loads(process.communicate()[0]) for process in processes]
    counted = {name: sum(one[name] for one in found) for name in ("tokens", "completions")}
    return {"threads": "1", "problems": 2 * half, "seconds": max(one["seconds"] for one in found), **counted}


def _draw(folder: Path, problems: int, port: int, skip: int = 0) -> list[str]:
    return [sys.executable, "-m", "benchmarks.ranks", "--draw", str(folder), str(problems), str(port), str(skip)]


def _drawn(contestant: str, problems: int, folder: Path) -> Row:
    threads = "2" if contestant == THREADS else "1"
    port = _free_port() if contestant == TWO else 0
    environment = os.environ | {"OPENBLAS_NUM_THREADS": threads, address.SECRET: secrets.token_hex(16)}
    worker = None
    try:
        if port:
            settings = {"address": ["127.0.0.1", port], "model": None, "memory_gb": None, "rows": None}
            settings |= {"wait_seconds": GIVES_UP, "yes": False}
            command = [sys.executable, "-m", "mlx_ssd.distributed", json.dumps(settings)]
            worker = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            worker.stdout.readline()  # it waits for a run
        command = _draw(folder, problems, port)
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return {"threads": threads, "problems": problems, **json.loads(done.stdout)}
    finally:
        if worker:
            worker.kill()
            worker.wait()


def draw(folder: Path, problems: int, port: int, skip: int) -> Row:
    """In a process of its own: what `collect` says of its work."""
    from mlx_ssd import models
    from mlx_ssd.decoding.policy import DecodingPolicy
    from mlx_ssd.distributed.sharing import Sharing
    from mlx_ssd.problems import read_problems
    from mlx_ssd.records import Sample
    from mlx_ssd.sampling.collect import Target, collect
    from mlx_ssd.sections import Model, ProblemSource, Prompt

    models.without_pytorch()
    source = models.locate(Model())
    model, tokenizer = models.load(source, "float32")
    return collect(
        [Target(folder / "samples.jsonl", DecodingPolicy(1.6, 20, 0.8))],
        Sample,
        read_problems(ProblemSource(limit=problems, skip=skip), "train"),
        model,
        tokenizer,
        prompt=Prompt(),
        samples_per_problem=SAMPLES,
        max_tokens=MAX_TOKENS,
        rows=ROWS,
        memory_gb=None,
        loops=None,
        seed=0,
        stream="train/round-1",
        revision=source.revision,
        label="sample",
        sharing=Sharing(("127.0.0.1", port), address.secret()) if port else None,
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


# ---------------------------------------------------------------- kills


def _kills(options: argparse.Namespace) -> Iterator[Row]:
    settings = ["--set", f"problems.train.limit={options.killed_problems}", "--set", "sample.rows=8"]
    settings += ["--set", "arms=[]"]
    generator = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        alone = Command.start(["sample", f"{folder}/alone", *settings], Path(folder) / "alone.log")
        if alone.wait():
            raise WorkFailed((Path(folder) / "alone.log").read_text())
        expected = _journal(Path(folder) / "alone").read_bytes()
        for number in range(options.kills):
            load, share = round(os.getloadavg()[0], 1), generator.uniform(0, 0.9)
            victim = VICTIMS[number % len(VICTIMS)]
            work = Path(folder) / str(number)
            row = _killed(work, settings, victim, share * len(expected))
            row |= {"round": number, "victim": victim, "at": round(share, 2), "load": load}
            yield row | _compared(work, expected)


def _killed(work: Path, settings: Sequence[str], victim: str, size: float) -> Row:
    at = f"127.0.0.1:{_free_port()}"
    shared = {address.SECRET: secrets.token_hex(16), "OPENBLAS_NUM_THREADS": "1"}
    worker = Command.start(["work", at], work.with_suffix(".worker.log"), **shared)
    rank_0 = Command.start(
        ["sample", str(work), *settings], work.with_suffix(".log"), **shared, **{address.WORKERS_AT: at}
    )
    try:
        while rank_0.process.poll() is None and not (_size(work) >= size and "joined" in rank_0.log.read_text()):
            time.sleep(0.01)
        hit = rank_0.process.poll() is None and _strike(worker, rank_0, victim)
        struck = grown = time.monotonic()
        silence, held = 0.0, _size(work)
        while rank_0.process.poll() is None and time.monotonic() - struck < GIVES_UP:
            time.sleep(0.02)
            if _size(work) > held:
                held, grown = _size(work), time.monotonic()
            silence = max(silence, time.monotonic() - grown)
        code = rank_0.process.poll()
        return {"hit": hit, "code": code, "silence": round(silence, 2), "seconds": round(time.monotonic() - struck, 2)}
    finally:
        for command in (worker, rank_0):
            _end(command)


def _strike(worker: Command, rank_0: Command, victim: str) -> bool:
    """Whether it was there to be struck."""
    if victim == RANK_0:
        found = [rank_0.stage("sample")]
    else:
        found = worker.look()
        if victim == WORKER:
            found = [psutil.Process(worker.process.pid), *found]
    for process in filter(None, found):
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGSTOP if victim == STOPPED else signal.SIGKILL)
    return any(found)


def _end(command: Command) -> None:
    for process in (*command.look(), command.process):
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            process.kill()
    command.process.wait()


def _journal(work: Path) -> Path:
    return work / "round-1" / "samples.jsonl"


def _size(work: Path) -> int:
    return _journal(work).stat().st_size if _journal(work).exists() else 0


def _compared(work: Path, expected: bytes) -> Row:
    """Against the samples that one rank drew alone."""
    wanted, found = expected.splitlines(), _journal(work).read_bytes().splitlines()

    def keys(lines: Sequence[bytes]) -> list[tuple[str, int]]:
        return [(sample["problem_id"], sample["sample_index"]) for sample in map(json.loads, lines)]

    return {
        "samples": len(found),
        "lost": len(set(keys(wanted)) - set(keys(found))),
        "doubled": len(found) - len(set(keys(found))),
        "differ": len(set(found) - set(wanted)),
    }


# ---------------------------------------------------------------- what the documents quote


def table(rows: Sequence[Row]) -> str:
    """Markdown for the documents: what was measured, against what, how much was wanted, and what came out."""
    lines = []
    for found in newest_runs(rows):
        if found[0]["experiment"] == "speed":
            one, two, threads, halves = _contestants(found)
            what = "drawing with two ranks on loopback, one BLAS thread each"
            lines.append((what, ONE, "1.6", ratio(one, two, seconds)))
            lines.append(("the same", THREADS, "", ratio(threads, two, seconds)))
            what = "two that know nothing of each other, half the problems each"
            lines.append((what, ONE, "", ratio(one, halves, seconds)))
        else:
            hit = [row for row in found if row["hit"]]
            wrong = sum(row["lost"] + row["doubled"] + row["differ"] for row in found)
            what = f"{len(hit)} ranks killed or stopped at work: samples lost, doubled or different"
            lines.append((what, f"{found[0]['samples']} of one rank alone, each time", "0", str(wrong)))
            ended = all(row["code"] == 0 for row in found)
            longest = f"{max(row['silence'] for row in found):.1f} s" + ("" if ended else ", and not all ended")
            lines.append(("the longest time without a sample after it", "", f"{LONGEST:.0f} s at most", longest))
    return wanted_table(lines)


def by_victim(rows: Sequence[Row]) -> str:
    """Markdown for docs/reliability.md: the newest run of `kills`, counted by who was struck."""
    names = ("struck", "runs", "while at work", "ended well", "samples lost", "doubled", "different", "longest silence")
    out = [table_row(names), "|---" * len(names) + "|"]
    kills = next(found for found in newest_runs(rows) if found[0]["experiment"] == "kills")
    for victim in (*VICTIMS, None):
        of = [row for row in kills if victim in (None, row["victim"])]
        counted = [len(of), sum(row["hit"] for row in of), sum(row["code"] == 0 for row in of)]
        counted += [sum(row[name] for row in of) for name in ("lost", "doubled", "differ")]
        longest = f"{max(row['silence'] for row in of):.1f} s"
        out.append(table_row([victim or "**all**", *map(str, counted), longest]))
    return "\n".join(out)


def render(rows: Sequence[Row]) -> str:
    out = ["# Ranks: all figures of the newest runs", ""]
    for found in newest_runs(rows):
        out += [*heading(found), ""]
        if found[0]["experiment"] == "speed":
            names = ("contestant", "round", "seconds", "tokens a second", "samples of the worker")
            out += [table_row(names), table_row(["---"] * len(names))]
            for row in found:
                rate = f"{row['tokens'] / row['seconds']:,.0f}"
                share = f"{sum(row.get('workers', {}).values()) / row['completions']:.0%}"
                cells = [row["contestant"], row["round"], f"{row['seconds']:.1f}", rate, share]
                out.append(table_row([str(cell) for cell in cells]))
        else:
            names = ("victim", "at", "hit", "code", "silence", "seconds", "samples", "lost", "doubled", "differ")
            out += [table_row(names), table_row(["---"] * len(names))]
            out += [table_row([str(row[name]) for name in names]) for row in found]
        out.append("")
    return "\n".join([*out, table(rows), ""])


def _contestants(found: list[Row]) -> tuple[list[Row], ...]:
    whole = whole_rounds(found, "contestant")
    return tuple(pick(whole, contestant=name) for name in (ONE, TWO, THREADS, HALVES))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--draw"]:
        print(json.dumps(draw(Path(sys.argv[2]), *map(int, sys.argv[3:]))))
    else:
        sys.exit(journal.start("ranks", make_parser(), ("speed", "kills"), run))
