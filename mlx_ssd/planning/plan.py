"""The plan of a recipe on a machine, before anything is downloaded or loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlx_ssd import assets, machine, models
from mlx_ssd.budget import KNOWN_CONFIGS, Costs, ModelSize, Speed, UnusualModel, chip_of
from mlx_ssd.budget.decoding import Work, decoding_bytes, rows_that_fit
from mlx_ssd.budget.described import decoder_of
from mlx_ssd.budget.training import trained_parameters, training_plan
from mlx_ssd.budget.work import analyzed_texts, decodings_of_curve, decodings_of_test, problem_count, sampled_apart
from mlx_ssd.errors import BadInput
from mlx_ssd.machine import metal
from mlx_ssd.planning import mends
from mlx_ssd.recipe import Recipe
from mlx_ssd.sections import Model
from mlx_ssd.storage import read_json

STAGES = ("sample", "train", "evaluate")
LEAST_GB, MOST_GB = 0.1, 65_536  # of a machine that is planned for
LONGEST = 2**20  # tokens: nobody asks for more
TOKEN_BYTES = 6  # of a token in a journal, as JSON
ANALYSIS_BYTES = 320  # of an analysed token (analysis/store.py)


@dataclass(frozen=True)
class Plan:
    """All figures are computed."""

    recipe: Recipe
    machine: Mapping[str, Any]
    costs: Costs
    seconds: Mapping[str, float] | None  # by stage; None where the machine's speed is not known
    most_rows: Mapping[str, int]  # of the expected length, by stage
    longest: Mapping[str, int]  # tokens of an answer with one row; in training, of a sample
    disk: Mapping[str, float]  # bytes by what they are for
    smaller: Mapping[int, mends.Settings | None]  # by GB of a smaller Mac: what to change, None for "not at all"

    @property
    def model(self) -> str:
        return self.recipe.model.path

    def record(self) -> dict[str, Any]:
        """plan.json."""
        costs, sampling = self.costs, self.costs.sampling
        stages = {}
        for stage in STAGES:
            parts = {name: round(size) for name, size in costs.parts[stage].items()}
            stages[stage] = {"bytes": parts, "peak_bytes": sum(parts.values()), "longest_tokens": self.longest[stage]}
            if stage in self.most_rows:
                stages[stage] |= {"rows": getattr(costs, f"{stage}_rows"), "most_rows": self.most_rows[stage]}
            if self.seconds:
                stages[stage]["seconds"] = round(self.seconds[stage], 1)
        cut = costs.largest.plan
        stages["train"] |= {"row_tokens": cut.row_tokens, "gradient_checkpointing": cut.gradient_checkpointing}
        found = {
            "v": 1,
            "recipe": self.recipe.name,
            "model": self.model,
            "machine": dict(self.machine),
            "usable_bytes": round(costs.memory),
            "stages": stages,
            "disk_bytes": {name: round(size) for name, size in self.disk.items()},
            "assumed": {
                "problems": costs.problems,
                "prompt_tokens": sampling.prompt,
                "answer_tokens": sampling.answer,
                "judged_answer_tokens": costs.judging.answer,
            },
            "smaller_macs": {str(gb): settings for gb, settings in self.smaller.items()},
        }
        if costs.speed:
            found["speed"] = costs.speed.source
        return found


def plan_for(
    recipe: Recipe, config: Mapping[str, Any], described: Mapping[str, Any], speed: Speed | None, hurried: bool = False
) -> Plan:
    """config: of the model; described: as machine.describe(); speed: None where it is not known.

    hurried: without what only a reader of the whole plan wants. Raises BadInput, in one sentence with the mend, for
    what cannot be done in the memory there is; UnusualModel where nothing can be computed.
    """
    try:
        costs = Costs.of(recipe, config, described, speed)
    except UnusualModel:
        raise
    except BadInput as error:
        raise _impossible(error, recipe, config, described) from None
    rows, longest, smaller = {}, dict.fromkeys(STAGES, 0), {}
    if not hurried:
        for stage, work in (("sample", costs.sampling), ("evaluate", costs.judging)):
            rows[stage] = rows_that_fit(costs.size, work, costs.memory, costs.fused)
            longest[stage] = _longest_answer(costs, work)
        longest["train"] = _longest_sample(costs)
        context = decoder_of(config).get("max_position_embeddings")
        if isinstance(context, int) and context > 0:
            longest = {stage: min(tokens, context) for stage, tokens in longest.items()}
        gigabytes = described["memory_bytes"] / mends.GIB
        for size in [gb for gb in mends.MACS if gb < gigabytes and gb in (8, 16, 24, 32, 36, 64)][-3:]:
            smaller[size] = mends.mend(recipe, config, mends.mac_with(size, described))
    seconds = costs.seconds(costs.problems) if speed else None
    return Plan(recipe, described, costs, seconds, rows, longest, disk_bytes(recipe, costs), smaller)


def known_config(model: Model) -> dict[str, Any] | None:
    """config.json of a model that is on this disk, or that is known; None for one that would be downloaded."""
    if model.path == "embedded":
        return read_json(assets.model_path() / "config.json")
    folder = Path(model.path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise BadInput(f"model.path: {folder} has no config.json; it must be a folder in Hugging Face layout")
        return read_json(folder / "config.json")
    return KNOWN_CONFIGS.get(model.path) or models.cached_config(model)


def of_this_machine() -> dict[str, Any]:
    """machine.describe(), with the memory that this process may have of it and, of a Mac, the working set that Metal
    recommends ("recommended_bytes")."""
    described, limit = machine.describe(), machine.memory.limit_bytes()
    if recommended := metal.recommended_bytes():
        described |= {"recommended_bytes": min(recommended, limit)}
    return described | {"memory_bytes": limit} if limit < machine.memory.physical_bytes() else described


def injected(memory_gb: float | None, chip: str | None) -> dict[str, Any]:
    """This machine, or another: --memory-gb and --chip. Raises BadInput for a chip that is not known, and for a memory
    that no machine has."""
    described = of_this_machine()
    if memory_gb is not None or chip:
        described.pop("recommended_bytes", None)
    if chip:
        described |= {"system": "macOS", "chip": chip if chip.startswith("Apple") else f"Apple {chip}"}
        del described["cores"]
        if not chip_of(described):
            raise BadInput(f"--chip {chip}: its speed is not known; write it as \"Apple M4 Pro\"")
    if memory_gb is not None:
        if not LEAST_GB <= memory_gb <= MOST_GB:
            raise BadInput(f"--memory-gb {memory_gb:g}: give a machine's memory, {LEAST_GB:g} to {MOST_GB:,} GB")
        described["memory_bytes"] = round(memory_gb * mends.GIB)
    return described


def disk_bytes(recipe: Recipe, costs: Costs) -> dict[str, float]:
    """What a run leaves on disk, and what it downloads."""
    found: dict[str, float] = {}
    if models.is_hub_name(recipe.model.path) and not models.is_cached(recipe.model):
        found["download"] = costs.size.weight_bytes
    sampling, judging = costs.sampling, costs.judging
    samples = costs.problems * recipe.sample.samples_per_problem * sampled_apart(recipe)
    answers = problem_count(recipe.problems.test) * recipe.evaluate.samples_per_problem * sum(decodings_of_test(recipe))
    if curve := recipe.evaluate.curve:
        validation = problem_count(recipe.problems.validation)
        answers += validation * curve.samples_per_problem * sum(decodings_of_curve(recipe))
    # Each sample stands in the journal and in the training rows.
    found["samples"] = 2 * samples * (sampling.prompt + sampling.answer) * TOKEN_BYTES
    found["answers"] = answers * (judging.prompt + judging.answer) * TOKEN_BYTES
    if recipe.analyze:
        found["analysis"] = len(costs.students) * analyzed_texts(recipe) * judging.answer * ANALYSIS_BYTES
    trained = [4 * trained_parameters(costs.size, student.recipe.train) for student in costs.students]
    copies = [4 + (student.recipe.train.validation is not None) for student in costs.students]
    # The last two, each with both moments; while one is written there are three.
    rounds = [student.recipe.rounds.last for student in costs.students]
    per_round = zip(trained, copies, rounds, strict=True)
    found["checkpoints"] = sum(times * 3 * size * (number - 1) for size, number, times in per_round)
    found["adapters"] = sum(times * size for size, times in zip(trained, rounds, strict=True))
    return found


def _longest_answer(costs: Costs, work: Work) -> int:
    """Tokens of the longest answer that one row has room for."""

    def needs(tokens: int) -> float:
        alone = replace(work, answer=tokens, longest_answer=tokens)
        return decoding_bytes(costs.size, 1, alone, costs.memory, costs.fused)

    return _most(needs, costs.memory)


def _longest_sample(costs: Costs) -> int:
    student = costs.largest
    train = student.recipe.train.model_copy(update={"row_tokens": None})

    def fits(tokens: int) -> bool:
        try:
            training_plan(
                costs.size, train, costs.size.weight_bytes, costs.memory, tokens, tokens, dtype=costs.size.dtype
            )
        except BadInput:
            return False
        return True

    return _most(lambda tokens: 0.0 if fits(tokens) else 1.0, 0.5)


def _most(needs: Any, there: float) -> int:
    low, high = 0, LONGEST
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if needs(middle) <= there else (low, middle - 1)
    return low


def _impossible(
    error: BadInput, recipe: Recipe, config: Mapping[str, Any], described: Mapping[str, Any]
) -> BadInput:
    settings = mends.mend(recipe, config, described)
    if settings:
        return BadInput(f"{error}; it fits with {mends.as_options(settings)}")
    weights, least = ModelSize.of(config).weight_bytes, mends.least_mac(recipe, config, described)
    where = f"a Mac with {least} GB or more runs it as it is" if least else "no Mac runs it"
    return BadInput(f"{error}; no shorter answers help ({weights / 1e9:.1f} GB are weights): {where}")
