"""`python -m mlx_ssd.stages UNIT RUN`: one stage of one arm in a process of its own, started by the pipeline.

A process of its own because a Metal out-of-memory abort cannot be caught, and because on Linux the
BLAS library must be in place before the process starts. The stage's measurements go to the file
named by --result, and until then what it has cost so far.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)  # until it can be caught; the pipeline sends it again

import argparse
import sys
import traceback
import warnings
from pathlib import Path

from mlx_ssd import models, stages
from mlx_ssd.child import exit_code
from mlx_ssd.layout import RunFiles
from mlx_ssd.problems import OtherProblems
from mlx_ssd.recipe import Recipe
from mlx_ssd.sampling.engines import TORCH
from mlx_ssd.cost import counted
from mlx_ssd.storage import write_json


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("unit", help="a stage, or STAGE.ARM")
    parser.add_argument("run", type=Path)
    parser.add_argument("--result", type=Path, required=True)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", OtherProblems)  # the pipeline has said it, once
    files = RunFiles(arguments.run)
    try:
        return exit_code(lambda: run(arguments.unit, files, arguments.result))
    except Exception as error:  # a defect of ours: the sentence here, the trace for whoever mends it
        with open(files.log, "a", encoding="utf-8") as log:
            traceback.print_exc(file=log)
        print(f"mlx-ssd: {arguments.unit} failed, {type(error).__name__}: {error}; see {files.log}", file=sys.stderr)
        return 1


def run(name: str, files: RunFiles, result: Path) -> None:
    recipe = Recipe.parse(files.recipe.read_text(encoding="utf-8"), str(files.recipe))
    unit = next(unit for unit in stages.units(recipe, files.directory) if unit.name == name)
    if unit.stage != "score" and unit.recipe.sample.engine != TORCH:  # score needs no tokenizer
        models.without_pytorch()
    with counted(result) as cost:
        measured = stages.get(unit.stage).run(unit.recipe, unit.files)
    write_json(result, {**measured, **cost()})


if __name__ == "__main__":
    sys.exit(main())
