"""Problem sets by name: what `--suite` of `mlx-ssd eval` and `mlx-ssd grade` means.

The names are those of the problem sources that have tests (`recipe.ProblemSource`), with the release where there are
several, so that a source that is added there has its name here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError

from mlx_ssd.controls import suite_name
from mlx_ssd.errors import BadInput
from mlx_ssd.problems import identity, read_problems
from mlx_ssd.records import Problem
from mlx_ssd.sections import Limits, ProblemSource

WITHOUT_TESTS = ("rstar_coder",)
WITHOUT_CODE = ("gsm8k",)  # the usual system message, which asks for Python, would be in the way
VALIDATION = "embedded-validation"  # the split that decodings are chosen on
USUAL_K = (1, 5, 10, 50, 100)

# What programs may use where the set asks for more than the usual limits (docs/problems.md): LiveCodeBench's own 6
# seconds a test and room for its longest answers; time for a solution of MBPP's authors that takes seconds.
_LIMITS = {
    "livecodebench": Limits(wall_seconds=6, cpu_seconds=6, memory_mb=2048, output_kb=16384),
    "mbpp": Limits(wall_seconds=15, cpu_seconds=15),
}
_OPTIONS = {"path": "--problems", "skip": "--skip", "limit": "--limit", "difficulty": "--difficulty"}


@dataclass(frozen=True)
class Suite:
    """A problem set, or the part of it that was asked for."""

    name: str
    source: ProblemSource
    role: str = "test"

    @property
    def file_name(self) -> str:
        return suite_name(self.source, self.role)

    def identity(self) -> str:
        """A hash of the contents, or the data set and its commit; the same for every part of a set."""
        try:
            return identity(self.source, self.role)
        except BadInput as error:
            raise self._in_options(error) from None

    def problems(self) -> list[Problem]:
        """Raises BadInput for data that cannot be read, naming the option."""
        try:
            return read_problems(self.source, self.role)
        except BadInput as error:
            raise self._in_options(error) from None

    def whole(self) -> Suite:
        everything = {"limit": None, "skip": 0, "difficulty": None}
        return Suite(self.name, self.source.model_copy(update=everything), self.role)

    def is_part(self) -> bool:
        return self != self.whole()

    def own_limits(self) -> Limits | None:
        """What its programs may use, where the set asks for other limits than the usual."""
        return _LIMITS.get(self.source.source)

    def _in_options(self, error: BadInput) -> BadInput:
        text = str(error)
        for key, option in _OPTIONS.items():
            text = text.replace(f"problems.{self.role}.{key}", option)
        text = text.replace(f"problems.{self.role}: ", f"--suite {self.name}: ")
        return BadInput(text)


def names() -> list[str]:
    """What --suite can be; `jsonl` is a file of your own, named by --problems."""
    found = []
    for source in get_args(ProblemSource.model_fields["source"].annotation):
        if source == "livecodebench":
            found += [f"{source}-{release}" for release in get_args(ProblemSource.model_fields["release"].annotation)]
        elif source not in WITHOUT_TESTS:
            found += [source, VALIDATION] if source == "embedded" else [source]
    return found


def choose(
    name: str | None,
    problems: str | None = None,
    limit: int | None = None,
    skip: int = 0,
    difficulty: str | None = None,
) -> Suite:
    """The suite of that name; `problems` is your own file (suite `jsonl`, or none named) or a local copy of the set.

    Raises BadInput with one sentence for what there is not.
    """
    if name is None:
        if problems is None:
            raise BadInput(f"--suite is missing; suites are: {_listing()}")
        name = "jsonl"
    if name not in names():
        raise BadInput(f"--suite {name}: there is no such suite; suites are: {_listing()}")
    if name == "jsonl" and problems is None:
        raise BadInput("--suite jsonl: name your file with --problems FILE")
    source, _, release = name.partition("-")
    role = "validation" if name == VALIDATION else "test"
    settings: dict[str, Any] = {"path": problems, "limit": limit, "skip": skip, "difficulty": difficulty}
    if source == "livecodebench":
        settings["release"] = release
    try:
        return Suite(name, ProblemSource(source=source, **settings), role)
    except ValidationError as error:
        first = error.errors()[0]
        option = _OPTIONS.get(str(first["loc"][0])) if first["loc"] else None
        message = first["msg"].removeprefix("Value error, ")
        if source == "embedded" and problems is not None:
            option, message = "--problems", "the embedded problems are where they are; leave it out"
        raise BadInput(f"{option or '--suite ' + name}: {message[0].lower()}{message[1:]}") from None


def pass_at(samples: int, others: Sequence[int] = ()) -> tuple[int, ...]:
    """The usual k, and others, that so many samples a problem allow."""
    return tuple(k for k in sorted({*USUAL_K, *others}) if k <= max(samples, 1))


def _listing() -> str:
    return ", ".join("--problems FILE (your own)" if name == "jsonl" else name for name in names())
