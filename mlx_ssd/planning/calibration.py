"""This machine's speed, measured once for a recipe's work and kept.

A child process (`python -m mlx_ssd.planning`) runs the engine and training steps on few layers of the model's own
widths, with random weights: nothing is downloaded, and of a large model only a part is held. What was measured is kept
in the cache folder under a hash of all that it depends on: the machine, the versions, the BLAS, the widths, the work.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_ssd import machine
from mlx_ssd.budget import CalibratedSpeed, ChipSpeed, Costs, ModelSize, Speed, TrainingPlan, chip_of, is_mac
from mlx_ssd.budget.decoding import Work
from mlx_ssd.budget.described import decoder_of
from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.layout import cache_folder
from mlx_ssd.planning import mends
from mlx_ssd.recipe import Recipe
from mlx_ssd.storage import hash_json, read_json, write_json

FORMAT = 2  # raised by hand when what is measured changes
MOST_SECONDS = 180
ROW_POINTS = (1, 8, 32, 128)  # rows side by side that are measured, up to those that are planned with
MOST_TOKENS = 256  # of a training row that is measured
PARAMETERS_ON_A_CPU, PARAMETERS_ON_A_GPU, MOST_LAYERS = 16e6, 1e9, 8  # of the layers that are measured, at the most
OF_LAYERS = ("num_hidden_layers", "layer_types", "max_window_layers")  # no part of a layer's own shape
OF_TEXT = ("transformers_version", "bos_token_id", "eos_token_id", "pad_token_id", "initializer_range", "use_cache")


def speed_of(recipe: Recipe, config: Mapping[str, Any], described: Mapping[str, Any]) -> Speed | None:
    """By a calibration that is kept, or else by the chip's table; None where there is neither. Measures nothing.

    Raises UnusualModel for a model whose size cannot be computed.
    """
    work = _work(recipe, config, described)
    if work and (kept := _kept(work, described)):
        return kept
    chip = chip_of(described)
    return ChipSpeed(chip) if chip else None


def calibrate(recipe: Recipe, config: Mapping[str, Any], described: Mapping[str, Any]) -> Speed:
    """As `speed_of`, but measured now if it is not kept: about ten seconds. `described` is this very machine.

    Raises WorkFailed where the child fails, UnusualModel as above.
    """
    work = _work(recipe, config, described)
    if work is None:
        raise WorkFailed("the recipe does not fit into this machine's memory: there is nothing to measure")
    if kept := _kept(work, described):
        return kept
    load = os.getloadavg()[0]
    found = {
        "v": FORMAT,
        "made": time.strftime("%Y-%m-%d %H:%M:%S"),
        "machine": dict(described),
        "versions": machine.versions(),
        "load": round(load, 1),
        "work": work,
        "measured": measure(work),
    }
    if path := _path(work, described):
        write_json(path, found)
    return CalibratedSpeed(found["measured"], found["load"])


def _kept(work: Mapping[str, Any], described: Mapping[str, Any]) -> CalibratedSpeed | None:
    path = _path(work, described)
    if not path or not path.is_file():
        return None
    try:
        found = read_json(path)
        return CalibratedSpeed(found["measured"], found["load"]) if found["v"] == FORMAT else None
    except (BadInput, OSError, KeyError, TypeError):  # a damaged file is measured anew
        return None


def _path(work: Mapping[str, Any], described: Mapping[str, Any]) -> Path | None:
    folder = cache_folder()
    of = {name: described[name] for name in ("chip", "cores") if name in described}
    blas = str(machine.openblas()) if os.environ.get("MLX_SSD_BLAS") != "bundled" else "bundled"
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "all")
    key = hash_json([FORMAT, of, machine.versions(), blas, threads, work])[:16]
    return folder / "calibrations" / f"{key}.json" if folder else None


def _work(recipe: Recipe, config: Mapping[str, Any], described: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the child is to do; None where not even a shortened recipe fits."""
    settings = mends.mend(recipe, config, described)
    if settings is None:
        return None
    costs = Costs.of(mends.changed(recipe, settings), config, described, None)
    return work_for(
        recipe,
        config,
        described,
        size=costs.size,
        lengths=costs.sampling,
        rows=(costs.sample_rows, costs.evaluate_rows),
        cut=costs.largest.plan,
        targets={student.recipe.train.targets for student in costs.students},
    )


def work_for(
    recipe: Recipe,
    config: Mapping[str, Any],
    described: Mapping[str, Any],
    *,
    size: ModelSize,
    lengths: Work,
    rows: Sequence[int],
    cut: TrainingPlan,
    targets: Iterable[str],
) -> dict[str, Any]:
    """The same of a recipe whose lengths, rows side by side and training rows are known."""
    return {
        "config": {key: value for key, value in decoder_of(config).items() if key not in (*OF_LAYERS, *OF_TEXT)},
        "dtype": size.dtype,
        "layers": list(_depths(size, described)),
        "rows": sorted({*(point for point in ROW_POINTS if point < max(rows)), *rows}),
        "prompt": lengths.prompt,
        "context": round(lengths.prompt + lengths.answer / 2),
        "answer": lengths.answer,
        "row_tokens": min(cut.row_tokens, MOST_TOKENS),
        "recompute": cut.gradient_checkpointing,
        "targets": sorted(targets),
        "method": recipe.train.method,
        "rank": recipe.train.rank,
        "decoding": recipe.sample.decoding.model_dump(),
    }


def _depths(size: ModelSize, described: Mapping[str, Any]) -> tuple[int, int]:
    """Few layers and some more: as many as a few seconds allow."""
    of_layer = (size.active - size.vocabulary * size.hidden) / size.layers
    most = max(int((PARAMETERS_ON_A_GPU if is_mac(described) else PARAMETERS_ON_A_CPU) / of_layer), 2)
    deep = min(size.layers, most, MOST_LAYERS)
    if size.window_bytes:  # two kinds of layers take turns: whole pairs
        return 2, max(deep - deep % 2, 4)
    return max(deep // 3, 1), deep


def measure(work: Mapping[str, Any]) -> dict[str, Any]:
    """What `python -m mlx_ssd.planning` finds of this work. Raises WorkFailed where it fails."""
    command = [sys.executable, "-P", "-m", "mlx_ssd.planning"]
    try:
        child = subprocess.run(
            command,
            input=json.dumps({**work, "spawned": time.time(), "parent": os.getpid()}),
            capture_output=True,
            text=True,
            timeout=MOST_SECONDS,
            env=machine.stage_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise WorkFailed(f"the calibration did not end within {MOST_SECONDS} seconds") from None
    if child.returncode:
        reason = (child.stderr.strip() or f"exit {child.returncode}").splitlines()[-1]
        raise WorkFailed(f"the calibration failed: {reason}")
    return json.loads(child.stdout.splitlines()[-1])
