"""Pre-trained bases, and run directories brought to their recipes: what an experiment over several bases is made of."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

from mlx_ssd.errors import WorkFailed
from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.storage import write_atomic

BASE_STEPS = 1200
BASES = Path(__file__).parent / "bases"
ONE_RUN = "import sys, mlx_ssd; mlx_ssd.run(sys.argv[1], sys.argv[2])"


def command(module: str, design: Any, jobs: int) -> str:
    """What was typed, but for the folder. design: a dataclass whose fields are the flags."""
    changed = [
        f" --{field.name.replace('_', '-')} {getattr(design, field.name)}"
        for field in fields(design)
        if getattr(design, field.name) != field.default
    ]
    return f"python -m {module} --work DIR --jobs {jobs}" + "".join(changed)


def base_model(base: int, work: Path) -> str:
    """The recipe's model.path of a base; pre-trains it where it is not there."""
    if base == 0:
        return "embedded"
    if (BASES / f"base-{base}").exists():
        return str(BASES / f"base-{base}")
    out = work / f"base-{base}"
    # The builder writes this file last but for the tokenizer's.
    if not (out / "model" / "tokenizer.json").exists():
        print(f"base {base}: pre-training, about 10 minutes", flush=True)
        build = ["--seed", str(base), "--steps", str(BASE_STEPS), "--muon-float32", "--out", str(out)]
        code = subprocess.run([sys.executable, "-m", "benchmarks.embedded_model.build", *build]).returncode
        if code:
            raise WorkFailed(f"the builder of base {base} ended with {code}")
    return str(out / "model")


def run_all(recipes: list[Recipe], work: Path, jobs: int) -> list[RunFiles]:
    """Bring a run directory to each recipe, `jobs` of them at a time; what they print goes to files beside them."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(_run, recipe, work) for recipe in recipes]
        try:
            return [future.result() for future in futures]
        except BaseException:  # the running ones end by themselves, or by the same Ctrl-C
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _run(recipe: Recipe, work: Path) -> RunFiles:
    out, text = work / "runs" / recipe.name, work / "recipes" / f"{recipe.name}.yaml"
    write_atomic(text, recipe.to_yaml())
    log = work / "recipes" / f"{recipe.name}.log"
    print(f"{recipe.name}: started, see {log}", flush=True)
    with open(log, "a", encoding="utf-8") as file:
        code = subprocess.run([sys.executable, "-c", ONE_RUN, str(text), str(out)], stdout=file, stderr=file).returncode
    if code:
        raise WorkFailed(f"{recipe.name} ended with {code}, see {log}; the same command goes on from there")
    print(f"{recipe.name}: done", flush=True)
    return RunFiles(out)
