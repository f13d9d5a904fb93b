"""Core AI's runtime behind plain calls: the functions of an .aimodel, each with its key-value cache.

On Linux the wheel computes on the CPU; on macOS 27 the system's own runtime does.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.export.coreai.bundle import AGAIN, INPUTS, LOGITS, STATES
from mlx_ssd.export.coreai.noise import without_noise
from mlx_ssd.export.coreai.sums import widen
from mlx_ssd.export.texts import Text

WIDE_SUMS = sys.platform == "linux"
CACHE_STEP = 64  # tokens by which the cache is larger than it need be, at most, as on a device


class Asset:
    """An .aimodel, compiled and loaded. The compiled copy is a temporary folder, removed by `close`, or when nothing
    refers to the asset any more. Raises BadInput where it cannot be read."""

    def __init__(self, path: Path):
        self.path = path
        if not (path / "main.mlirb").exists():  # at which the package's own reader would end the process
            raise BadInput(f"{path} has no main.mlirb; {AGAIN}")
        runner, opened = asyncio.Runner(), contextlib.AsyncExitStack()
        self.close = weakref.finalize(self, _close, runner, opened)
        self._run = runner.run
        with without_noise(), tempfile.TemporaryDirectory() as folder:
            from coreai.authoring import AIModelAsset

            try:
                asset = AIModelAsset.load(path)
                if WIDE_SUMS:
                    program = asset.program
                    widen(program)
                    asset = program.save_asset(Path(folder, path.name))
                    del program
                    gc.collect()  # of a large model two would stand in memory
                self._model = self._run(opened.enter_async_context(asset.executable()))
            except Exception as error:  # whatever the runtime meets in a damaged file
                self.close()
                raise BadInput(f"{path} cannot be loaded ({_reason(error)}); {AGAIN}") from error

    @property
    def names(self) -> list[str]:
        """Of its functions."""
        return list(self._model.function_names)

    def function(self, name: str) -> Any:
        """A function as the runtime gives it. Raises BadInput where it is not what an app calls."""
        if name not in self.names:
            raise BadInput(f"{self.path} has no function {name}, but {', '.join(self.names)}; {AGAIN}")
        with without_noise():
            function = self._model.load_function(name)
        found = [tuple(getattr(function.desc, f"{kind}_names")) for kind in ("input", "state", "output")]
        if found != [INPUTS, STATES, (LOGITS,)]:
            raise BadInput(f"the function {name} of {self.path} takes and gives {found}; {AGAIN}")
        return function

    def call(self, function: Any, inputs: dict[str, np.ndarray], states: dict[str, Any]) -> np.ndarray:
        """The logits [1, S, vocabulary] of a call, which changes the states."""
        from coreai.runtime import NDArray

        arrays = {name: NDArray(array) for name, array in inputs.items()}
        try:
            return np.array(self._run(function(arrays, state=states))[LOGITS].numpy())
        except RuntimeError as error:
            raise WorkFailed(f"the runtime cannot compute {self.path} ({_reason(error)})") from error


class CoreAiReader:
    """One function of an asset, asked as an app asks it: the prompt in one call, then token by token."""

    def __init__(self, asset: Asset, name: str, context: int):
        self._asset, self._context = asset, context
        self._function = asset.function(name)
        self._cache = self._function.desc.state_descriptor(STATES[0])

    def logits(self, text: Text) -> np.ndarray:
        count = len(text.prompt_ids) + len(text.completion_ids) - 1
        if count > self._context:
            raise BadInput(f"a text of {count} tokens does not fit the export, which holds {self._context}")
        states, found, end = self._empty(-(-count // CACHE_STEP) * CACHE_STEP), [], 0
        for ids in (text.prompt_ids, *([token] for token in text.completion_ids[:-1])):
            end += len(ids)
            inputs = dict(zip(INPUTS, (_ids(ids), _ids(range(end))), strict=True))
            found.append(self._asset.call(self._function, inputs, states)[0, -1])
        return np.stack(found).astype(np.float32)

    def _empty(self, capacity: int) -> dict[str, Any]:
        """Caches for so many tokens, zeroed: the runtime does not do it."""
        from coreai.runtime import NDArray

        shape = [size if size > 0 else capacity for size in self._cache.shape]
        return {name: NDArray(np.zeros(shape, self._cache.dtype)) for name in STATES}


def _ids(values: Any) -> np.ndarray:
    return np.array([values], dtype=np.int32)


def _close(runner: asyncio.Runner, opened: contextlib.AsyncExitStack) -> None:
    runner.run(opened.aclose())
    runner.close()


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
