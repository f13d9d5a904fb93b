"""The stages in order: what is done is skipped, what was interrupted goes on, each in a process of its own.

A stage's fingerprint is made of its version, its part of the recipe and the hashes of what it
reads; never of times, paths or package versions. The manifest holds, per stage, what the
fingerprint was made of, so that a difference can be named.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_ssd import machine, models, stages
from mlx_ssd.errors import BadInput, Interrupted, WorkFailed
from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.stages import Stage, Unit
from mlx_ssd.storage import hash_json, hash_path, read_json, remove, run_lock, write_atomic, write_json
from mlx_ssd.supervision import Failure, supervise

# Stages with a budget of memory, and the section that has it.
HEAVY = {"sample": "sample", "train": "train", "validate": "evaluate", "evaluate": "evaluate"}


@dataclass(frozen=True)
class Plan:
    """What would happen to a unit: "done", "resume", "start", "again", or "changed" (by `difference`)."""

    name: str
    action: str
    difference: str = ""


def run(
    recipe: Recipe | str | Path,
    out: str | Path | None = None,
    only: Sequence[str] = stages.NAMES,
    redo: bool = False,
    planned: dict[str, Any] | None = None,
) -> RunFiles:
    """Bring the run directory `out` (default runs/NAME) to where `recipe` wants it.

    Stages whose fingerprint and outputs are unchanged are skipped; an interrupted one goes on where
    it stopped. A stage begun with other settings is refused, unless `redo`, which throws its results
    away. `planned` is kept as plan.json, for the report to set beside what was measured; what stands there already
    stays, unless `redo`. Raises BadInput (exit 2), WorkFailed (exit 1) or Interrupted (exit 130).
    """
    if not isinstance(recipe, Recipe):
        recipe = Recipe.load(recipe)
    files = run_files(recipe, out)
    if files.directory.exists() and not files.directory.is_dir():
        raise BadInput(f"{files.directory} is a file, not a run directory; choose another --out")
    machine.keep_awake()  # before anything is downloaded
    for unit in stages.units(recipe, files.directory):
        if unit.stage in only:
            stages.get(unit.stage).check(unit.recipe)
    recipe = _pinned(recipe, files)
    _refuse_without_forerunners(recipe, files, only)
    files.directory.mkdir(parents=True, exist_ok=True)
    with run_lock(files.directory) as lock:
        manifest = _read_manifest(files)
        if planned and (redo or not files.plan.exists()):
            write_json(files.plan, planned)
        for unit in _one_after_the_other(recipe, files.directory, only):
            plan = plan_unit(unit, manifest)
            if plan.action == "done":
                continue
            if plan.action == "changed" and not redo:
                raise BadInput(
                    f"{files.directory}: {unit.name} was made with {plan.difference}; choose another --out, "
                    f"or give --redo to throw away its results"
                )
            if plan.action in ("changed", "again"):
                stage = stages.get(unit.stage)
                for path in getattr(stage, "thrown_away", stage.outputs)(unit.recipe, unit.files):
                    remove(path)
            write_atomic(files.recipe, recipe.to_yaml())
            _run_unit(unit, manifest, lock)
    return files


def _one_after_the_other(recipe: Recipe, directory: Path, only: Sequence[str]) -> Iterator[Unit]:
    """The units to bring about. Which there are is looked up after each: a round may follow from the one before."""
    past: set[str] = set()
    while unit := next((u for u in stages.units(recipe, directory) if u.stage in only and u.name not in past), None):
        past.add(unit.name)
        yield unit


def run_files(recipe: Recipe, out: str | Path | None) -> RunFiles:
    return RunFiles(Path(out) if out else Path("runs") / recipe.name)


def plan(recipe: Recipe, out: str | Path | None = None) -> tuple[RunFiles, list[Plan]]:
    """What `run` would do to each unit. Loads no model and writes nothing."""
    files = run_files(recipe, out)
    manifest = _read_manifest(files)
    plans: list[Plan] = []
    for unit in stages.units(recipe, files.directory):
        if any(plan.action != "done" for plan in plans if _stage_of(plan.name) != unit.stage):
            # Its inputs are not there yet, or will be made anew.
            begun = unit.name in manifest["stages"]
            plans.append(Plan(unit.name, "again if its inputs change" if begun else "start"))
        else:
            plans.append(plan_unit(unit, manifest))
    return files, plans


def plan_unit(unit: Unit, manifest: dict) -> Plan:
    """Compare the manifest with what the recipe asks for. Reads files, changes nothing."""
    stage, directory = stages.get(unit.stage), unit.files.directory
    entry = manifest["stages"].get(unit.name)
    if entry is None:
        return Plan(unit.name, "start")
    outputs = {str(path.relative_to(directory)): path for path in stage.outputs(unit.recipe, unit.files)}
    if not entry["complete"] and not any(path.exists() for path in outputs.values()):
        return Plan(unit.name, "start")  # it was begun, but there is nothing that could be lost
    made_of, before = _made_of(unit), _counted(stage, entry["made_of"])
    if before != made_of:
        # What others are made of costs seconds and nothing is lost with it.
        action = "again" if unit.stage in stages.DERIVED else "changed"
        return Plan(unit.name, action, _difference(before, made_of))
    if entry["complete"] and all(
        path.exists() and hash_path(path) == entry["outputs"].get(relative) for relative, path in outputs.items()
    ):
        return Plan(unit.name, "done")
    return Plan(unit.name, "resume")


def _stage_of(unit_name: str) -> str:
    return unit_name.split(".")[0]


def _made_of(unit: Unit) -> dict[str, Any]:
    stage = stages.get(unit.stage)
    return {
        "version": stage.VERSION,
        # As the manifest holds them: JSON knows lists, no tuples.
        "settings": json.loads(json.dumps(stage.settings(unit.recipe))),
        "inputs": stage.inputs(unit.recipe, unit.files),
    }


def _counted(stage: Stage, made_of: dict[str, Any]) -> dict[str, Any]:
    """Without the settings that an earlier version counted and this one does not."""
    uncounted, settings = getattr(stage, "UNCOUNTED", frozenset()), made_of["settings"]
    if not uncounted:
        return made_of
    train = {key: value for key, value in settings["train"].items() if key not in uncounted}
    return made_of | {"settings": settings | {"train": train}}


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The first difference between what a stage was made of and what it would be made of, in words."""
    if before["version"] != now["version"]:
        return "another version of mlx-ssd"
    if before["settings"] != now["settings"]:
        return changed_setting(before["settings"], now["settings"])
    names = [name for name in now["inputs"] if before["inputs"].get(name) != now["inputs"][name]]
    return f"another {names[0]}"


def changed_setting(before: Any, now: Any, path: str = "") -> str:
    """The first difference between two trees of settings, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*now, *(k for k in before if k not in now)]:
            if before.get(key) != now.get(key):
                return changed_setting(before.get(key), now.get(key), f"{path}.{key}".lstrip("."))
    return f"{path} = {before!r}, now it is {now!r}"


def _refuse_without_forerunners(recipe: Recipe, files: RunFiles, only: Sequence[str]) -> None:
    """A single stage runs on what the stages before it made, whole and under this very recipe: else
    recipe.yaml, and the report, would say of them what is not so."""
    several = any(unit.stage == "validate" for unit in stages.units(recipe, files.directory))
    if several and len(only) == 1 and only[0] in stages.OF_A_ROUND:
        raise BadInput(
            f"{files.directory}: {only[0]} belongs to each of several rounds; mlx-ssd run goes on where they stopped"
        )
    before = stages.NAMES[: stages.NAMES.index(only[0])]
    manifest = _read_manifest(files)
    for unit in stages.units(recipe, files.directory):
        if unit.stage not in before:
            continue
        plan = plan_unit(unit, manifest)
        if plan.action == "changed":
            raise BadInput(
                f"{files.directory}: {unit.name} was made with {plan.difference}; "
                f"choose another --out, or run from {unit.stage} on with --redo"
            )
        if plan.action != "done":
            raise BadInput(f"{files.directory}: {only[0]} needs {unit.name}, which is not complete; run it first")


def _pinned(recipe: Recipe, files: RunFiles) -> Recipe:
    """The recipe with its hub model's commit written in: all stages of a run, and all its resumptions,
    use one and the same."""
    if recipe.model.revision or not models.is_hub_name(recipe.model.path):
        return recipe
    begun = Recipe.load(files.recipe).model if files.recipe.exists() else None
    if begun and begun.path == recipe.model.path and begun.revision:
        revision = begun.revision
    else:
        revision = models.locate(recipe.model).revision
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"revision": revision})})


def _read_manifest(files: RunFiles) -> dict:
    if not files.manifest.exists():
        return {"v": 1, "stages": {}}
    manifest = read_json(files.manifest)
    try:
        whole = manifest["v"] == 1 and all(
            set(entry["made_of"]) == {"version", "settings", "inputs"}
            and isinstance(entry["fingerprint"], str)
            and (not entry["complete"] or (isinstance(entry["outputs"], dict) and entry["measured"]["seconds"] >= 0))
            for entry in manifest["stages"].values()
        )
    except (TypeError, KeyError, AttributeError):
        whole = False
    if not whole:
        raise BadInput(f"{files.manifest} is not a manifest of this version; restore it, or choose another --out")
    return manifest


def _run_unit(unit: Unit, manifest: dict, lock: int) -> None:
    name, files = unit.name, unit.files
    made_of = _made_of(unit)
    entry: dict[str, Any] = {"fingerprint": hash_json(made_of), "made_of": made_of, "complete": False}
    before = manifest["stages"].get(name, {})
    # What it has cost so far, for a process that goes on; at its end all that was measured.
    result = files.directory / f".{name}.result.json"
    if not before or _counted(stages.get(unit.stage), before["made_of"]) != made_of:
        remove(result)
    else:
        entry |= {"failures": before["failures"]} if "failures" in before else {}
        if "measured" in before:
            write_json(result, before["measured"])
    manifest |= {"versions": machine.versions(), "machine": machine.describe()}
    manifest["stages"][name] = entry
    write_json(files.manifest, manifest)
    # -P: no module of the user's current folder may stand in for one of Python's.
    command = [sys.executable, "-P", "-m", "mlx_ssd.stages", name, str(files.directory)]
    command += ["--result", str(result)]

    def survived(failure: Failure) -> None:
        _log(files, failure.sentence)
        entry["failures"] = [*entry.get("failures", []), failure.facts]
        write_json(files.manifest, manifest)

    again = "the same command goes on where it stopped"
    if unit.stage in HEAVY:
        again += f", with --set {HEAVY[unit.stage]}.memory_gb=… in less memory"
    _log(files, f"{name}: started")
    code = supervise(command, lock, name=name, directory=files.directory, again=again, on_failure=survived)
    _log(files, f"{name}: ended with {code}")
    if code == 130:
        raise Interrupted(f"interrupted during {name}; the same command goes on from there")
    if code:
        # The stage has said why, in one sentence, on the terminal.
        raise WorkFailed("") if code == 1 else BadInput("")
    entry |= {
        "complete": True,
        "measured": read_json(result),
        "outputs": {
            str(path.relative_to(files.directory)): hash_path(path)
            for path in stages.get(unit.stage).outputs(unit.recipe, unit.files)
        },
    }
    remove(result)
    write_json(files.manifest, manifest)


def _log(files: RunFiles, text: str) -> None:
    with open(files.log, "a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
