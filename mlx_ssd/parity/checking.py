"""`mlx-ssd parity`: the comparison in a process of its own, and its table."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from mlx_ssd import machine
from mlx_ssd.errors import BadInput, Interrupted, WorkFailed
from mlx_ssd.export.source import source_of
from mlx_ssd.layout import MAIN
from mlx_ssd.storage import read_json, run_lock
from mlx_ssd.supervision import supervise

FIGURES = {"max_abs": "max", "mean_abs": "mean", "relative": "relative", "kl": "KL", "top1": "top-1"}
WIDTH = 112  # columns: narrower, names would be broken


def compare_run(directory: Path, arm: str = MAIN) -> dict[str, Any]:
    """What parity.json holds; it stands in the run directory, of another arm than the main one as parity-ARM.json.

    Raises BadInput where there is nothing to compare, or PyTorch is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise BadInput("mlx-ssd parity compares with PyTorch, which is not installed: pip install -e '.[parity]'")
    source_of(directory, arm)
    path = directory / ("parity.json" if arm == MAIN else f"parity-{arm}.json")
    machine.keep_awake()
    # -P: no module of the user's current folder may stand in for one of Python's.
    command = [sys.executable, "-P", "-m", "mlx_ssd.parity", str(directory), "--arm", arm]
    command += ["--result", str(path)]
    with run_lock(directory) as lock:
        code = supervise(
            command, lock, name="the comparison", directory=directory, again="the same command begins again"
        )
    if code == 130:
        raise Interrupted("interrupted; nothing was written, the same command begins again")
    if code:
        raise BadInput("") if code == 2 else WorkFailed("")  # the child has said why
    return read_json(path)


def show(facts: dict[str, Any]) -> None:
    """The table, on standard output: where tolerances come from stands under it, as many have the same reason."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"MLX beside PyTorch: {facts['name']}, {facts['way']}, float32", title_justify="left", box=None)
    for name in ("quantity", *FIGURES.values(), "tolerance", "from", "verdict"):
        table.add_column(name, justify="left" if name in ("quantity", "from", "verdict") else "right", no_wrap=True)
    letters: dict[str, str] = {}
    for row in facts["rows"]:
        letter = letters.setdefault(row["why"], chr(ord("a") + len(letters)))
        figures = [_short(row, name) for name in FIGURES]
        table.add_row(row["quantity"], *figures, _tolerance(row), letter, row["verdict"])
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(table)
    for why, letter in letters.items():
        console.print(f"{letter}  {why}", highlight=False)
    for row in facts["rows"]:
        if row["verdict"] == "fail" and row["note"]:
            console.print(f"{row['quantity']}: {row['note']}", highlight=False)
    for part in facts["left_out"]:
        console.print(f"left out: {part['part']}; {part['why']}", highlight=False)


def _short(row: dict[str, Any], name: str) -> str:
    if name == "max_abs" and "differ" in row:
        return f"{row['differ']:,}"
    value = row.get(name, "")
    if isinstance(value, str):  # what JSON has no number for
        return value
    return f"{value:.2%}" if name == "top1" else f"{value:.1e}"


def _tolerance(row: dict[str, Any]) -> str:
    return "none differ" if row["judged"] == "differ" else f"{FIGURES[row['judged']]} {row['tolerance']:.1e}"
