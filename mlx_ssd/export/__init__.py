"""From a run's adapter to what an app, a phone or another tool loads, each export proved on its own files.

A target is a module with these names; it imports nothing heavy at the top, since all are read to list them:

    EXTRA                           what `pip install -e '.[EXTRA]'` adds for it, or None
    PACKAGES                        the modules that come with it
    PRECISIONS                      what it can be written in; the first is usual
    CHECKED_BY                      what loads the artefact again, in words
    TOLERANCES                      precision -> Tolerance of the conversion
    refuse(config, adapter_config)  one sentence why such a model has no such export, or None
    write(source, folder, precision, report)   the artefact, into an empty folder; report(done, total) as it goes
    load(source, folder, precision)            a Reader of the artefact's own files, nothing else
    rounded(source, precision)      a Reader of the student in that precision, made without the exporter: what is left
                                    to the artefact is the conversion's own error. None: the precision loses nothing
    survival(source, folder, precision)        rows of what is left of the update in each layer, or None where the
                                    weights are not touched
    others(source, folder, precision)          only where there are some: (name, Reader, a Reader of what it should be)
                                    of each further model in the artefact, measured like the conversion
    check_memory(source)            only where the whole model is built to verify it: raises BadInput where this machine
                                    cannot hold it. Asked before anything is computed
    FILES                           names that the finished folder must hold

Exports never import each other; what they share stands beside them.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mlx_ssd.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

    from mlx_ssd.export.source import Source
    from mlx_ssd.export.texts import Text

TARGETS = {
    "adapter": "mlx_ssd.export.adapter",
    "peft": "mlx_ssd.export.peft",
    "mlx": "mlx_ssd.export.mlx",
    "hf": "mlx_ssd.export.hf",
    "coreml": "mlx_ssd.export.coreml",
    "coreai": "mlx_ssd.export.coreai",
    "gguf": "mlx_ssd.export.gguf",
}

PRESET = "preset"  # a decoding rule for the base (mlx_ssd/export/preset): no student, and none of the names above


@dataclass(frozen=True)
class Tolerance:
    """The most that a conversion may change, against the student in the same precision. `why` stands beside it."""

    max_abs: float  # of a logit
    kl_mean: float  # nats
    clear_top1: float  # share of the positions with a clear margin whose first token stays first
    why: str
    of_largest: float = 0.0  # of the largest logit, where that is more than `max_abs`

    def allowed(self, measured: dict[str, Any]) -> float:
        """What a logit may be off, of what `compare` measured."""
        return max(self.max_abs, self.of_largest * measured["largest"])


class Reader(Protocol):
    """A model that can be asked for logits, whatever runs it. One that a sampling engine can draw from has two names
    more, and can be graded: `model`, and `engine`, the engine's name (`sampling.engines`)."""

    def logits(self, text: Text) -> np.ndarray:
        """float32 [completion tokens, vocabulary]: before each token of the completion. What keeps a cache takes the
        prompt in one call and the completion token by token, as an app would."""
        ...


class Target(Protocol):
    EXTRA: str | None
    PACKAGES: tuple[str, ...]
    PRECISIONS: tuple[str, ...]
    CHECKED_BY: str
    TOLERANCES: dict[str, Tolerance]
    FILES: tuple[str, ...]

    def refuse(self, config: dict[str, Any], adapter_config: dict[str, Any]) -> str | None: ...
    def write(self, source: Source, folder: Path, precision: str, report: Callable[[int, int], None]) -> None: ...
    def load(self, source: Source, folder: Path, precision: str) -> Reader: ...
    def rounded(self, source: Source, precision: str) -> Reader | None: ...
    def survival(self, source: Source, folder: Path, precision: str) -> Sequence[dict[str, Any]] | None: ...


def find(name: str) -> Target:
    """Raises BadInput for a name that is none."""
    if name not in TARGETS:
        raise BadInput(f"--target {name}: there is {', '.join(TARGETS)}, {PRESET}")
    return importlib.import_module(TARGETS[name])


def get(name: str) -> Target:
    """Raises BadInput for a name that is none, and where the packages it needs are not installed."""
    target = find(name)
    if missing := [package for package in target.PACKAGES if importlib.util.find_spec(package) is None]:
        raise BadInput(f"--target {name} needs {', '.join(missing)}: pip install -e '.[{target.EXTRA}]'")
    return target


def folder_name(name: str, precision: str) -> str:
    """coreml, or coreml-int4 where that is not the usual one."""
    return name if precision == get(name).PRECISIONS[0] else f"{name}-{precision}"


def check_memory(source: Source, name: str) -> None:
    """Raises BadInput where this machine's memory is too small for the target, as far as that is known beforehand."""
    if ask := getattr(get(name), "check_memory", None):
        try:
            ask(source)
        except BadInput as error:
            raise BadInput(f"--target {name}: {error}") from None
