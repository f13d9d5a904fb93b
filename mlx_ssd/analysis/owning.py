"""`mlx-ssd analyze RUN --texts FILE`: a user's own texts, in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from mlx_ssd import arms, machine
from mlx_ssd.analysis import store
from mlx_ssd.arms import Arm
from mlx_ssd.errors import BadInput, Interrupted, WorkFailed
from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.storage import run_lock
from mlx_ssd.supervision import supervise


def arm_of(directory: Path, name: str) -> Arm:
    """A trained arm. Raises BadInput where there is no run, no such arm or nothing trained yet."""
    files = RunFiles(directory)
    if not files.recipe.exists():
        raise BadInput(f"{directory} is not a run directory; it has no recipe.yaml")
    trained = {arm.name: arm for arm in arms.students(Recipe.load(files.recipe), directory)}
    if name not in trained:
        raise BadInput(f"--arm {name}: {directory} has {', '.join(trained)}")
    if not trained[name].files.adapter.exists():
        raise BadInput(f"{directory} has no trained adapter of {name}; run `mlx-ssd run --out {directory}` first")
    return trained[name]


def analyse_own(directory: Path, arm: str, texts: Path, out: Path) -> None:
    """Fill `out` with the analysis of the texts; a part that is there whole stays."""
    arm_of(directory, arm)
    if not texts.is_file():
        raise BadInput(f"--texts {texts} is not a file")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not store.texts_file(out).exists())):
        raise BadInput(f"--out {out} holds something else; give a new folder, or one of an earlier analysis")
    out.mkdir(parents=True, exist_ok=True)
    machine.keep_awake()
    # -P: no module of the user's current folder may stand in for one of Python's.
    command = [sys.executable, "-P", "-m", "mlx_ssd.analysis", str(directory), "--arm", arm]
    command += ["--texts", str(texts), "--out", str(out)]
    with run_lock(out) as lock:
        code = supervise(command, lock, name="the analysis", directory=out)
    if code == 130:
        raise Interrupted("interrupted; the same command goes on where it stopped")
    if code:
        raise BadInput("") if code == 2 else WorkFailed("")  # the child has said why
