"""With which decodings each arm is evaluated: its own, the controls of the base, and the curve.

A student is compared three ways (docs/method.md): with the base at the same decoding, with the base at its
best, chosen on validation problems, and with the base under two-stage decoding, which is what an ideally
fitted student would do without any training; after several rounds it has a stage for each.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mlx_ssd.arms import Arm, base, students
from mlx_ssd.decoding.draw import Policy
from mlx_ssd.decoding.policy import DecodingPolicy, StagedPolicy
from mlx_ssd.layout import BASE, RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.rounds import taught_by
from mlx_ssd.sections import Decoding, ProblemSource
from mlx_ssd.storage import read_json, write_json

BASE_BEST = "base-best"


@dataclass(frozen=True)
class Entry:
    """A line of the table, or a point of the curve: a model under a decoding on a problem set."""

    label: str
    files: RunFiles  # of the arm whose model it is
    suite: str
    policy: Policy

    @property
    def generations(self) -> Path:
        return self.files.generations(self.suite, self.policy.name())

    @property
    def grades(self) -> Path:
        return self.files.grades(self.suite, self.policy.name())


def suite_name(source: ProblemSource, role: str) -> str:
    """embedded-test, mine-validation, …: the problem set in file names."""
    name = Path(source.path).stem if source.source == "jsonl" and source.path else source.source
    name += f"-{source.release}" if source.source == "livecodebench" else ""
    return f"{name}-{role}"


def policy_of(decoding: Decoding) -> DecodingPolicy:
    return DecodingPolicy(**decoding.model_dump())


def ideal_student(arm: Arm, evaluation: DecodingPolicy) -> StagedPolicy | None:
    """The base decoded as an ideally fitted student of the arm's kept round would be, two-stage decoding after one
    round; None where the sampling leaves the base as it is."""
    taught = taught_by(arm.recipe, arm.files.number)
    stages = [policy_of(decoding) for decoding in taught if not decoding.plain]
    return StagedPolicy(*stages, evaluation) if stages else None


def test_entries(recipe: Recipe, directory: Path) -> list[Entry]:
    """Everything that is scored on the test problems, base first; its best only once it has been chosen."""
    suite, frozen = suite_name(recipe.problems.test, "test"), base(recipe, directory).files
    trained = students(recipe, directory)
    found = [Entry(BASE, frozen, suite, policy_of(arm.recipe.evaluate.decoding)) for arm in trained]
    if best := best_of_base(recipe, frozen):
        found.append(Entry(BASE_BEST, frozen, suite, best))
    if recipe.evaluate.two_stage:
        for arm in trained:
            if policy := ideal_student(arm, policy_of(arm.recipe.evaluate.decoding)):
                found.append(Entry(policy.kind, frozen, suite, policy))
    found += [Entry(arm.name, arm.files, suite, policy_of(arm.recipe.evaluate.decoding)) for arm in trained]
    return list(dict.fromkeys(found))


def curve_entries(recipe: Recipe, directory: Path) -> list[Entry]:
    """Everything that is tried on the validation problems; none without a curve."""
    curve = recipe.evaluate.curve
    if not curve or not recipe.problems.validation:
        return []
    suite, frozen = suite_name(recipe.problems.validation, "validation"), base(recipe, directory).files
    main, *others = students(recipe, directory)
    own = policy_of(recipe.evaluate.decoding)
    found = [
        Entry(BASE, frozen, suite, replace(own, temperature=temperature, top_p=top_p))
        for top_p in (own.top_p, *curve.base_top_p)
        for temperature in curve.temperatures
    ]
    for temperature in curve.temperatures:
        policy = ideal_student(main, replace(own, temperature=temperature))
        if recipe.evaluate.two_stage and policy:
            found.append(Entry(policy.kind, frozen, suite, policy))
    for arm in (main, *others):
        decoding = policy_of(arm.recipe.evaluate.decoding)
        found += [Entry(arm.name, arm.files, suite, replace(decoding, temperature=t)) for t in curve.temperatures]
    return list(dict.fromkeys(found))


def choose_best(tried: list[tuple[Entry, float]]) -> None:
    """Write down the base's best decoding of (entry, pass@1 on validation problems); of equals the first."""
    best, _ = max(tried, key=lambda pair: pair[1])
    found = {
        "v": 1,
        "suite": best.suite,
        "decoding": asdict(best.policy),
        "tried": [{"decoding": entry.policy.name(), "pass@1": value} for entry, value in tried],
    }
    write_json(best.files.best_decoding, found)


def best_of_base(recipe: Recipe, files: RunFiles) -> DecodingPolicy | None:
    """As the recipe has it, or as chosen on the curve; None before that, or without either."""
    if recipe.evaluate.base_best:
        return policy_of(recipe.evaluate.base_best)
    if not recipe.evaluate.curve or not files.best_decoding.exists():
        return None
    return DecodingPolicy(**read_json(files.best_decoding)["decoding"])
