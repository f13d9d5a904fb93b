"""What a probe asks: which decodings of which model on which problems, and where the answers lie."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from mlx_ssd import models
from mlx_ssd.controls import Entry, policy_of, suite_name
from mlx_ssd.decoding.policy import DecodingPolicy, StagedPolicy
from mlx_ssd.errors import BadInput
from mlx_ssd.layout import BASE, RunFiles
from mlx_ssd.probing.room import FEWEST
from mlx_ssd.problems import identity, read_problems
from mlx_ssd.recipe import Recipe, find, names
from mlx_ssd.records import Problem
from mlx_ssd.sections import ProblemSource
from mlx_ssd.storage import hash_json, read_json, write_json

PROBLEMS, SAMPLES = 100, 5  # so many samples give pass@5
# (temperature, top-k, top-p) to sample the training data with: the paper's, and what lies around it.
POLICIES = ((1.3, 20, 0.8), (1.6, 20, 0.8), (2.0, 20, 0.8), (1.6, 20, 0.95))
# T_train T_eval: the two multiply (docs/decoding.md). After T 1.6 these are T_eval 0.6, 0.75, 0.9, 1.05 and 1.2.
PRODUCTS = (0.96, 1.2, 1.44, 1.68, 1.92)
SECOND_ROUND = 1.0  # its T_train, after a first one that heats: it cuts again and flattens no further (docs/rounds.md)
BASE_TEMPERATURES = (0.6, 0.9, 1.2, 1.35, 1.5)  # with the recipe's own top-p
BASE_OTHERS = ((0.9, (0.75, 0.9, 1.05)), (0.95, (0.6, 0.75, 0.9)))  # top-p: what cuts less wants a lower temperature


@dataclass(frozen=True)
class Question:
    """A recipe whose problems.validation is exactly what is asked, and how often; a folder for the answers."""

    recipe: Recipe
    policies: tuple[DecodingPolicy, ...]
    samples: int
    directory: Path
    revision: str  # of the model's weights

    @property
    def own(self) -> DecodingPolicy:
        """How the recipe evaluates."""
        return policy_of(self.recipe.evaluate.decoding)

    def base(self) -> list[Entry]:
        """The base as itself, the recipe's own decoding first."""
        grid = [
            replace(self.own, temperature=temperature, top_p=top_p)
            for top_p, temperatures in ((self.own.top_p, BASE_TEMPERATURES), *BASE_OTHERS)
            for temperature in temperatures
        ]
        return [self._entry(BASE, policy) for policy in dict.fromkeys((self.own, *grid))]

    def after(self, *taught: DecodingPolicy) -> list[Entry]:
        """The base as the ideal student of a sampling policy; of several, as that of each round's in turn."""
        heat = prod(policy.temperature for policy in taught if not policy.greedy)
        temperatures = [round(product / heat, 2) for product in PRODUCTS]
        policies = [StagedPolicy(*taught, replace(self.own, temperature=t)) for t in temperatures]
        return [self._entry(policy.kind, policy) for policy in policies]

    @property
    def two_rounds(self) -> tuple[DecodingPolicy, ...]:
        """The first policy, and a second round after it; nothing where the first does not heat."""
        first = self.policies[0]
        return (first, replace(first, temperature=SECOND_ROUND)) if first.temperature > SECOND_ROUND else ()

    def entries(self) -> list[Entry]:
        """All of them, the base first."""
        found = self.base() + [entry for train in self.policies for entry in self.after(train)]
        return found + (self.after(*self.two_rounds) if self.two_rounds else [])

    def problems(self) -> list[Problem]:
        return read_problems(_validation(self.recipe), "validation")

    def source_problems(self) -> list[Problem]:
        """All that the source holds, asked or not."""
        return read_problems(_validation(self.recipe).model_copy(update={"limit": None}), "validation")

    def _entry(self, label: str, policy: DecodingPolicy | StagedPolicy) -> Entry:
        suite = suite_name(_validation(self.recipe), "validation")
        return Entry(label, RunFiles(self.directory, BASE), suite, policy)

    def save(self) -> None:
        """Write it down for the process that computes. Raises BadInput when the folder holds answers to another
        question; more problems, samples or policies are the same question, and what is there is used."""
        loops = self.recipe.evaluate.stop_loops
        made_of = {
            "model": self.revision,
            "seed": self.recipe.seed,
            "prompt": self.recipe.prompt.settings(),
            "problems.validation": [
                identity(_validation(self.recipe), "validation"),
                _validation(self.recipe).model_dump(exclude={"path", "limit"}),
            ],
            "evaluate.max_tokens": self.recipe.evaluate.max_tokens,
            "evaluate.stop_loops": loops and loops.model_dump(),
            "evaluate.limits": self.recipe.evaluate.limits.model_dump(),
        }
        path = _path(self.directory)
        before = read_json(path)["made_of"] if path.exists() else made_of
        if other := next((name for name in made_of if hash_json(made_of[name]) != hash_json(before.get(name))), None):
            raise BadInput(f"{self.directory} holds a probe with another {other}; remove it, or choose another --out")
        question = {
            "v": 1,
            "made_of": made_of,
            "recipe": self.recipe.model_dump(mode="json"),
            "policies": [asdict(policy) for policy in self.policies],
            "samples": self.samples,
        }
        write_json(path, question)

    @classmethod
    def load(cls, directory: Path) -> Question:
        saved = read_json(_path(directory))
        policies = tuple(DecodingPolicy(**policy) for policy in saved["policies"])
        recipe = Recipe.model_validate(saved["recipe"])
        return cls(recipe, policies, saved["samples"], directory, saved["made_of"]["model"])


def recipe_of(what: str | Path, overrides: dict[str, Any] | None = None) -> Recipe:
    """The recipe that `what` names, or quickstart's settings with the model that it names: a folder, a hub name or
    "embedded". Raises BadInput when it is neither."""
    overrides = overrides or {}
    text = str(what)
    if text in names() or Path(text).is_file():
        return Recipe.load(text, overrides)
    if text == "embedded":
        return Recipe.load("quickstart", overrides)
    a_file = text.endswith((".yaml", ".yml"))
    if Path(text).expanduser().is_dir() or (models.is_hub_name(text) and not a_file):
        name = "quickstart-" + re.sub(r"[^A-Za-z0-9._-]+", "-", Path(text).name)
        return Recipe.load("quickstart", {"name": name, "model.path": text} | overrides)
    if "/" in text and not a_file:
        raise BadInput(f"{text} is no folder; give a folder with a model, a hub name, 'embedded', or a recipe")
    find(text)  # says what it might have meant
    raise AssertionError("unreachable")


def ask(recipe: Recipe, directory: Path, problems: int, samples: int, policies: Sequence[DecodingPolicy]) -> Question:
    """The question, its hub model pinned and its problems looked at. Without policies: POLICIES and the recipe's own.

    Raises BadInput where there are no validation problems with tests, or where they are test problems.
    """
    source = _source(recipe, problems)
    revision = models.locate(recipe.model).revision
    pinned = {"revision": revision} if models.is_hub_name(recipe.model.path) else {}
    recipe = recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update=pinned),
            "problems": recipe.problems.model_copy(update={"validation": source}),
        }
    )
    if not policies:
        own = policy_of(recipe.sample.decoding)
        around = [replace(own, temperature=t, top_k=k, top_p=p) for t, k, p in POLICIES]
        unchanged = own.temperature == 1 and not own.top_k and own.top_p == 1
        policies = around if unchanged else [own, *around]
    question = Question(recipe, tuple(dict.fromkeys(policies)), samples, directory, revision)
    _check_problems(question.problems(), recipe)
    return question


def _source(recipe: Recipe, problems: int) -> ProblemSource:
    """The validation problems of a recipe, at most so many."""
    source = recipe.problems.validation
    if source is None:
        if recipe.problems.test.source != "embedded":
            raise BadInput(
                "problems.validation: the recipe has none, and a probe does not look at test problems; set it, "
                "for example with --set 'problems.validation={source: jsonl, path: validation.jsonl}'"
            )
        source = ProblemSource()
    if source.source == "rstar_coder":
        raise BadInput("problems.validation: rstar_coder has no tests, and a probe needs them; name a file that has")
    # The embedded set is a file of its own, so a limit there only says how many the curve takes. In a user's file
    # what lies beyond the limit may be the test problems.
    limit = problems if source.source == "embedded" else min(problems, source.limit or problems)
    return source.model_copy(update={"limit": limit})


def _check_problems(problems: list[Problem], recipe: Recipe) -> None:
    if not all(problem.tests for problem in problems):
        raise BadInput("problems.validation: a probe grades answers, but some of these problems have no tests")
    if len(problems) < FEWEST:
        raise BadInput(
            f"problems.validation: {len(problems)} problems give no interval; a probe needs at least {FEWEST}"
        )
    if recipe.problems.test.source != "rstar_coder":
        tested = {problem.prompt for problem in read_problems(recipe.problems.test, "test")}
        if same := next((problem.id for problem in problems if problem.prompt in tested), None):
            raise BadInput(f"problems.validation: problem {same!r} is a test problem too; choose others")


def _validation(recipe: Recipe) -> ProblemSource:
    assert recipe.problems.validation is not None  # `ask` has seen to it
    return recipe.problems.validation


def _path(directory: Path) -> Path:
    return directory / "question.json"
