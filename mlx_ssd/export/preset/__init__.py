"""Staged decoding as a product: a sampler for mlx-lm that does with the base what a student would do.

No training is needed, only a recipe: a run's, trained or not, or a probe's. What is written is checked against the
specification (decoding/policy.py), in probabilities and in draws.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from importlib.resources import files
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mlx_ssd import models
from mlx_ssd.arms import students
from mlx_ssd.controls import ideal_student, policy_of
from mlx_ssd.decoding.policy import StagedPolicy
from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.export.preset.llama_cpp import Chain, chain_of
from mlx_ssd.layout import MAIN, RunFiles
from mlx_ssd.prompts import template_options
from mlx_ssd.recipe import Recipe
from mlx_ssd.rounds import validations
from mlx_ssd.storage import atomic_directory, read_json

NAME = "preset"
SAMPLER, SETTINGS, CARD = "ssd_sampler.py", "preset.json", "README.md"
ROWS, VOCABULARY, DRAWS = 64, 2000, 20_000  # of the check
TOLERANCE = 1e-5  # of a probability: float32 beside float64
MOST_DEVIATIONS = 6.0  # of the frequency of a draw: further off by chance less than once in 1e8


@dataclass(frozen=True)
class Rule:
    """A decoding rule of the base, and the recipe of the student that it stands for."""

    recipe: Recipe
    policy: StagedPolicy

    @property
    def stages(self) -> list[dict[str, Any]]:
        names = ("temperature", "top_k", "top_p")
        return [{name: getattr(stage, name) for name in names} for stage in self.policy.stages]

    @property
    def effective_temperature(self) -> float:
        return prod(stage.temperature for stage in self.policy.stages)


def rule_of(directory: Path, arm: str = MAIN) -> Rule:
    """Of a run's or a probe's folder: two stages, and one more for each further round up to the kept one, or up to the
    last where none has been gone through yet.

    Raises BadInput where there is none, or a stage that the preset cannot hold.
    """
    path = RunFiles(directory).recipe
    if not path.exists():
        raise BadInput(f"{directory} has no recipe.yaml; give a run's folder, or a probe's")
    recipe = Recipe.load(path)
    names = (MAIN, *(found.name for found in recipe.arms))
    if arm not in names:
        raise BadInput(f"--arm {arm}: {directory} has {', '.join(names)}")
    student = next(found for found in students(recipe, directory) if found.name == arm)
    own = student.recipe
    if own.rounds.count != "auto" and not validations(directory, arm):  # not begun: what the whole recipe is to make
        student = replace(student, files=replace(student.files, number=own.rounds.count))
    for key, decoding in (("sample", own.sample.decoding), ("evaluate", own.evaluate.decoding)):
        if decoding.order != "temperature_first":
            raise BadInput(f"{key}.decoding.order is {decoding.order}; the preset is written for temperature_first")
    policy = ideal_student(student, policy_of(own.evaluate.decoding))
    if policy is None:
        raise BadInput(
            f"{arm} samples from the base as it is (T 1, no top-k, no top-p), so that an ideal student is the base; "
            "decode it as evaluate.decoding says"
        )
    return Rule(own, policy)


def folder_of(directory: Path, arm: str) -> Path:
    exports = directory / "export"
    return (exports if arm == MAIN else exports / "arms" / arm) / NAME


def make(directory: Path, arm: str = MAIN) -> dict[str, Any]:
    """Write and check RUN/export/preset; what verify.json holds."""
    from mlx_ssd.export.preset.card import card

    rule = rule_of(directory, arm)
    with atomic_directory(folder_of(directory, arm)) as partial:
        (partial / SAMPLER).write_text(sampler_text(rule), encoding="utf-8")
        chain = chain_of(rule.policy.stages)
        _write_json(partial / SETTINGS, settings(rule, chain))
        facts = verify(partial, rule)
        if facts["failures"]:
            raise WorkFailed(f"the preset was not written: {'; '.join(facts['failures'])}")
        (partial / CARD).write_text(card(directory, rule, chain, facts), encoding="utf-8")
        _write_json(partial / "verify.json", facts)
    return facts


def check(directory: Path, arm: str = MAIN) -> dict[str, Any]:
    """Verify what is there, as it is."""
    folder = folder_of(directory, arm)
    facts = verify(folder, rule_of(directory, arm))
    if facts["failures"]:
        raise WorkFailed(f"{folder} does not hold: {'; '.join(facts['failures'])}")
    return facts


def sampler_text(rule: Rule) -> str:
    recipe = rule.recipe
    text = files("mlx_ssd.export.preset").joinpath(f"{SAMPLER}.txt").read_text(encoding="utf-8")
    values = {
        "@BASE@": base_name(recipe),
        "@LOAD@": load_name(recipe),
        "@KIND@": rule.policy.kind.capitalize(),
        "@STAGES@": "\n".join(f"    {stage!r}," for stage in rule.stages),
        "@SYSTEM@": repr(recipe.prompt.system),
        "@TEMPLATE@": repr(template_options(recipe.prompt)),
        "@MAX_TOKENS@": str(recipe.evaluate.max_tokens),
    }
    for key, value in values.items():
        text = text.replace(key, value)
    return text


def base_name(recipe: Recipe) -> str:
    """On the hub, or of its folder, whose whole path is nobody's business."""
    path = recipe.model.path
    return path if path == "embedded" or models.is_hub_name(path) else Path(path).name


def load_name(recipe: Recipe) -> str:
    """What mlx_lm.load is to be given, as far as it may be written down."""
    if recipe.model.path == "embedded":
        return "mlx_ssd/assets/model"
    return recipe.model.path if models.is_hub_name(recipe.model.path) else f"path/to/{base_name(recipe)}"


def settings(rule: Rule, chain: Chain | str) -> dict[str, Any]:
    """What preset.json holds."""
    recipe = rule.recipe
    found: dict[str, Any] = {"v": 2, "recipe": recipe.name, "base": base_name(recipe)}
    if recipe.model.revision:
        found["revision"] = recipe.model.revision
    found |= {"stages": rule.stages, "system": recipe.prompt.system}
    found["effective_temperature"] = rule.effective_temperature
    if isinstance(chain, Chain):
        temperatures = [stage.temperature for stage in chain.stages]
        found["llama_cpp"] = {"arguments": chain.arguments, "temperatures": temperatures}
    return found


def verify(folder: Path, rule: Rule) -> dict[str, Any]:
    """The written sampler beside the specification, on rows of logits from flat to sharp. `failures` is empty where
    all is well."""
    import mlx.core as mx

    recipe, policy, kind = rule.recipe, rule.policy, rule.policy.kind
    facts: dict[str, Any] = {"v": 1, "target": NAME, "kind": kind, "recipe": recipe.name, "base": base_name(recipe)}
    facts["failures"] = []
    if missing := [name for name in (SAMPLER, SETTINGS) if not (folder / name).is_file()]:
        return facts | {"failures": [f"{folder} has no {', '.join(missing)}"], "verdict": "fail"}
    try:
        module, held = load(folder / SAMPLER), read_json(folder / SETTINGS)
    except (SyntaxError, ImportError, ValueError) as error:
        return facts | {"failures": [f"{folder} cannot be read: {error}"], "verdict": "fail"}
    random = np.random.default_rng(0)
    logits = random.normal(size=(ROWS, VOCABULARY)) * np.linspace(0.5, 8, ROWS)[:, None]
    logits = logits.astype(np.float32)
    expected = np.array([policy.reference_probabilities(row) for row in logits])
    ids, kept = (np.array(array) for array in module.distribution(mx.array(logits)))
    kept = np.exp(kept.astype(np.float64) - kept.max(axis=-1, keepdims=True))
    found = np.zeros_like(expected)
    np.put_along_axis(found, ids, kept / kept.sum(axis=-1, keepdims=True), axis=-1)
    largest = float(np.abs(found - expected).max())
    row = int(np.argmax((expected > 0).sum(axis=-1)))
    mx.random.seed(0)
    drawn = np.array(module.sampler(mx.broadcast_to(mx.array(logits[row]), (DRAWS, VOCABULARY))))
    shares = np.bincount(drawn, minlength=VOCABULARY) / DRAWS
    spread = np.sqrt(np.maximum(expected[row] * (1 - expected[row]) / DRAWS, 1 / DRAWS**2))
    deviations = float((np.abs(shares - expected[row]) / spread).max())
    facts |= {"probabilities": {"rows": ROWS, "vocabulary": VOCABULARY, "max_abs": largest, "tolerance": TOLERANCE}}
    facts["draws"] = {"count": DRAWS, "tokens": int((expected[row] > 0).sum()), "largest_deviations": deviations}
    if not largest <= TOLERANCE:
        facts["failures"].append(f"a probability is {largest:.2g} from {kind} decoding's, more than {TOLERANCE:g}")
    if not deviations <= MOST_DEVIATIONS or shares[expected[row] == 0].any():
        facts["failures"].append(f"draws are {deviations:.1f} standard deviations from {kind} decoding's")
    if held.get("stages") != rule.stages:
        facts["failures"].append(f"{SETTINGS} does not hold the recipe's decodings")
    return facts | {"verdict": "fail" if facts["failures"] else "pass"}


def load(path: Path) -> Any:
    """The written file as a module; not by an import, which would leave its bytecode beside it."""
    module = ModuleType(path.stem)
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), module.__dict__)
    return module


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
