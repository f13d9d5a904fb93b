"""A whole recipe: its sections (sections.py) together, from strict YAML.

A recipe file overrides the defaults, `--set section.key=value` overrides the file. Unknown keys, wrong types and
contradictions are refused with the key's path.
"""

from __future__ import annotations

import difflib
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from mlx_ssd.errors import BadInput
from mlx_ssd.recipe_text import SHORT, put, sentence
from mlx_ssd.sections import (
    Analysis,
    Arm,
    Curation,
    Evaluation,
    Model,
    Problems,
    Prompt,
    Rounds,
    Sampling,
    Section,
    Training,
)
from mlx_ssd.strict_yaml import read_yaml


class Recipe(Section):
    """The whole run. `Recipe.load("quickstart")` or `Recipe.load("my.yaml", {"train.rank": 8})`."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0, lt=2**32)
    model: Model = Model()
    prompt: Prompt = Prompt()
    problems: Problems = Problems()
    sample: Sampling = Sampling()
    curate: Curation = Curation()
    train: Training = Training()
    rounds: Rounds = Rounds()
    evaluate: Evaluation = Evaluation()
    analyze: Analysis | None = Analysis()  # None: left out
    arms: tuple[Arm, ...] = Field((), strict=False)  # students beside the main one

    @model_validator(mode="before")
    @classmethod
    def _sections_written_short(cls, settings: Any) -> Any:
        if not isinstance(settings, dict):
            return settings
        short = {key: whole(settings[key]) for key, whole in SHORT.items() if isinstance(settings.get(key), (int, str))}
        return settings | short

    @model_validator(mode="after")
    def _no_contradictions(self) -> Recipe:
        if self.evaluate.curve and self.evaluate.base_best:
            raise ValueError("evaluate.curve chooses the base's best decoding; set one of it and evaluate.base_best")
        if self.evaluate.curve and not self.problems.validation:
            raise ValueError("evaluate.curve needs problems.validation: settings are not chosen on test problems")
        self._check_rounds()
        names = [arm.name for arm in self.arms]
        folders = [name.casefold() for name in names]  # macOS's file system tells no case
        if twice := next((name for name in names if folders.count(name.casefold()) > 1), None):
            raise ValueError(f"two arms are called {twice}")
        for name in names:
            self.of_arm(name)  # its settings must make a recipe too
        if self.analyze:
            if self.analyze.texts not in (known := ["base", "student", *names]):
                raise ValueError(f"analyze.texts is {self.analyze.texts!r}; give one of {', '.join(known)}")
            if self.analyze.samples_per_problem > self.evaluate.samples_per_problem:
                raise ValueError(
                    f"analyze.samples_per_problem {self.analyze.samples_per_problem} is more than the "
                    f"{self.evaluate.samples_per_problem} of evaluate.samples_per_problem"
                )
        if max(self.evaluate.pass_at) > self.evaluate.samples_per_problem:
            raise ValueError(
                f"evaluate.pass_at {max(self.evaluate.pass_at)} needs at least as many samples, "
                f"but evaluate.samples_per_problem is {self.evaluate.samples_per_problem}"
            )
        if min(self.evaluate.pass_at) < 1:
            raise ValueError(f"evaluate.pass_at {min(self.evaluate.pass_at)} means nothing; give numbers from 1")
        if not all(0 <= beta < 1 for beta in self.train.betas):
            raise ValueError(f"train.betas {list(self.train.betas)} must each be from 0 to below 1")
        if not self.train.keys or self.train.num_layers == 0:
            raise ValueError("train.keys and train.num_layers leave nothing to train; 'all' and -1 train every layer")
        if self.train.method == "full" and self.train.keys != "all":
            raise ValueError("train.method full trains every weight of a layer; leave train.keys at all")
        return self

    def _check_rounds(self) -> None:
        rounds = self.rounds
        if not all(0 < temperature <= 100 for temperature in rounds.temperatures):
            raise ValueError(f"rounds.temperatures {list(rounds.temperatures)} must each be above 0, and at most 100")
        if rounds.last == 1:
            return
        if not self.evaluate.curve:
            raise ValueError("rounds needs evaluate.curve and problems.validation: they decide which round is kept")
        if rounds.prompts == "fresh" and self.problems.train.limit is None:
            raise ValueError("rounds.prompts fresh needs problems.train.limit, the number of problems of each round")
        if rounds.teacher == "previous" and self.sample.engine != "mlx":
            raise ValueError(f"sample.engine {self.sample.engine} draws from the base alone; give rounds.teacher base")

    @classmethod
    def load(cls, name_or_path: str | Path, overrides: dict[str, Any] | None = None) -> Recipe:
        """A recipe by name (`mlx-ssd recipes`) or from a YAML file, with `{"section.key": value}` on top.

        Raises BadInput with one sentence: the file or --set, the key's path, and how to mend it.
        """
        path = find(name_or_path)
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise BadInput(f"{path} is not a text file in UTF-8") from None
        return cls.parse(text, str(path), overrides)

    @classmethod
    def parse(cls, text: str, where: str, overrides: dict[str, Any] | None = None) -> Recipe:
        settings = read_yaml(text, where)
        for key, value in (overrides or {}).items():
            put(settings, key, value)
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            raise BadInput(sentence(error, cls, where, set(overrides or {}))) from None

    def of_arm(self, name: str) -> Recipe:
        """The recipe of one arm alone: its settings over these. "student" is this recipe itself."""
        # Which texts are analysed concerns all arms together; it may be another arm's.
        settings = self.model_dump(mode="json", exclude={"arms", "analyze"})
        if name != "student":
            arm = next(arm for arm in self.arms if arm.name == name)
            for key, value in arm.set.items():
                put(settings, key, value)
        try:
            return Recipe.model_validate(settings)
        except ValidationError as error:
            raise ValueError(f"arm {name}: {sentence(error, Recipe, '', set()).removeprefix(': ')}") from None

    def to_yaml(self) -> str:
        """Every setting written out; reading it back gives an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def parse_override(text: str) -> tuple[str, Any]:
    """`section.key=value` of --set; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise BadInput(f"--set {text}: write it as section.key=value, for example --set train.rank=8")
    return key.strip(), read_yaml(value, f"--set {key}", mapping=False)


def recipe_folder() -> Path:
    """Inside the wheel as mlx_ssd/_recipes; beside the package in a checkout."""
    package = Path(str(files("mlx_ssd")))
    inside = package / "_recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def names() -> list[str]:
    return sorted(path.stem for path in recipe_folder().glob("*.yaml"))


def find(name_or_path: str | Path) -> Path:
    named = recipe_folder() / f"{name_or_path}.yaml"
    if str(name_or_path) in names():
        return named
    path = Path(name_or_path)
    if path.is_file():
        return path
    near = difflib.get_close_matches(str(name_or_path), names(), n=1)
    mend = f"did you mean {near[0]}?" if near else f"recipes are: {', '.join(names())}"
    raise BadInput(f"no recipe or recipe file {str(name_or_path)!r}; {mend}")
