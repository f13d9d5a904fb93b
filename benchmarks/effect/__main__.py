"""Does self-distillation help on the embedded model, compared with what?

    python -m benchmarks.effect --work DIR [--jobs 2] [--known effect.jsonl]

1. Bases: 0 is the embedded model; 1 and 2, pre-trained with other seeds, are in bases/, because another processor
   would make others of the same seeds; further ones are pre-trained (10 minutes each, needs torch).
2. Validation: each base's best decoding, and the students' temperatures on base 0 -> DIR/frozen.json.
3. Test: one run directory for each base and seed, with students of three kinds (soft targets, hard tokens, the T = 1
   control) on all prompts, a third and a ninth, and the controls of the base -> DIR/effect.jsonl, DIR/effect.md.

Everything goes through `mlx_ssd.run`, so the same command goes on where it was stopped. Three to four
core-hours; `--seeds 2` is the first two thirds of it, and `--known` takes the results of such a beginning over.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path

from benchmarks.effect import collect
from benchmarks.effect.design import (
    BASE_TOP_P,
    FIRST_TEST_PROBLEM,
    TEMPERATURES,
    Design,
    run_recipe,
    tuning_recipe,
)
from benchmarks.effect.report import read, render
from benchmarks.effect.runs import base_model, command, run_all
from benchmarks.embedded_model.solutions import Noise
from mlx_ssd.controls import suite_name
from mlx_ssd.errors import BadInput, SsdError
from mlx_ssd.models import locate
from mlx_ssd.sections import Model
from mlx_ssd.storage import read_json, write_atomic, write_json


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for bases, runs and results")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one core each")
    parser.add_argument("--known", type=Path, help="results of fewer seeds on these bases, which are taken over")
    for field in fields(Design):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, type=int, default=field.default, help=f"default {field.default}")
    arguments = parser.parse_args()
    design = Design(**{field.name: getattr(arguments, field.name) for field in fields(Design)})
    # Side by side, runs are fastest on one thread each; the stages inherit it.
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        experiment(design, arguments.work.resolve(), arguments.jobs, read(arguments.known) if arguments.known else [])
    except SsdError as error:
        print(f"effect: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def experiment(design: Design, work: Path, jobs: int, known: list[collect.Row]) -> None:
    """All of it; what is done is skipped."""
    with ThreadPoolExecutor(jobs) as pool:
        models = list(pool.map(lambda base: base_model(base, work), range(design.bases)))
    revisions = [locate(Model(path=path)).revision for path in models]
    tuned = []
    frozen_path = work / "frozen.json"
    if known:
        write_json(frozen_path, collect.take_over(known, design, revisions))
    else:
        tuned = run_all([tuning_recipe(design, base, model) for base, model in enumerate(models)], work, jobs)
    if not frozen_path.exists():
        write_json(frozen_path, collect.freeze(design, tuned))
    frozen = read_json(frozen_path)
    if frozen["design"] != asdict(design):
        raise BadInput(f"{frozen_path} belongs to another design ({frozen['design']}); choose another --work")
    done = {row["seed"] for row in known[1:]}
    missing = [run for run in design.runs() if design.seed(*run) not in done]
    if not missing:
        raise BadInput("--known holds all of this already")
    recipes = [run_recipe(design, base, index, models[base], frozen) for base, index in missing]
    runs = run_all(recipes, work, jobs)
    more = {
        "command": command("benchmarks.effect", design, jobs),
        "jobs": jobs,
        "noise": asdict(Noise()),
        "temperatures": TEMPERATURES,
        "base_top_p": BASE_TOP_P,
        "suite": suite_name(recipes[0].problems.test, "test"),
        "first_problem": FIRST_TEST_PROBLEM,
    }
    rows = [collect.manifest(revisions, frozen, runs, tuned, more, known), *known[1:]]
    for (base, index), files in zip(missing, runs, strict=True):
        rows += collect.rows(base, design.seed(base, index), files)
    rows = [json.loads(json.dumps(row)) for row in rows]  # as a reader of the file has them
    write_atomic(work / "effect.jsonl", "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))
    write_atomic(work / "effect.md", render(rows))
    print(f"{work / 'effect.md'} and {work / 'effect.jsonl'}: {len(rows) - 1} results of {len(runs)} runs")


if __name__ == "__main__":
    sys.exit(main())
