"""A model folder in Hugging Face layout, as Transformers, mlx-lm, mlx-swift-lm and LM Studio read it: weights in shards
with their index, and all else as the base has it."""

from __future__ import annotations

import filecmp
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_ssd.errors import WorkFailed
from mlx_ssd.models import MODEL_FILES

if TYPE_CHECKING:
    import mlx.core as mx

SHARD_BYTES = 5 * 2**30
INDEX = "model.safetensors.index.json"
FILES = ("config.json", "model*.safetensors", INDEX, "tokenizer*.json")


class Shards:
    """Writes tensors in the order they come, in files of at most SHARD_BYTES, of which one at a time is in memory."""

    def __init__(self, folder: Path, kind: str):
        """`kind` is what its readers ask for in a file's metadata: "mlx", or "pt" of Transformers."""
        self.folder, self.kind = folder, kind
        self._waiting: dict[str, mx.array] = {}
        self._written: list[list[str]] = []  # names in each file
        self._bytes = self._total = 0

    def add(self, name: str, array: mx.array) -> None:
        if self._waiting and self._bytes + array.nbytes > SHARD_BYTES:
            self._flush()
        self._waiting[name] = array
        self._bytes += array.nbytes
        self._total += array.nbytes

    def close(self) -> None:
        """Write what is left, and the index; only now it is known how many files there are."""
        self._flush()
        count = len(self._written)
        weight_map: dict[str, str] = {}
        for number, names in enumerate(self._written):
            one = f"model-{number + 1:05}-of-{count:05}.safetensors" if count > 1 else "model.safetensors"
            self._path(number).rename(self.folder / one)
            weight_map |= dict.fromkeys(names, one)
        index = {"metadata": {"total_size": self._total}, "weight_map": dict(sorted(weight_map.items()))}
        (self.folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    def _flush(self) -> None:
        import mlx.core as mx

        from mlx_ssd.training.arrays import write_arrays

        write_arrays(self._path(len(self._written)), self._waiting, {"format": self.kind})
        self._written.append(list(self._waiting))
        self._waiting, self._bytes = {}, 0
        mx.clear_cache()

    def _path(self, number: int) -> Path:
        return self.folder / f"shard-{number}.safetensors"


def of_dtype(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """config.json of the same model in another type, as Transformers 5 writes it, and 4 where the base does."""
    return config | {key: dtype for key in ("dtype", "torch_dtype") if key in config or key == "dtype"}


def companions(base: Path) -> list[Path]:
    """What makes a model besides its weights and config.json: tokenizer, chat template, generation_config.json."""
    found = {file for pattern in MODEL_FILES if not pattern.startswith("model*") for file in base.glob(pattern)}
    return sorted(file for file in found if file.name != "config.json" and not file.name.endswith(".index.json"))


def copy_companions(base: Path, folder: Path) -> None:
    for file in companions(base):
        shutil.copyfile(file, folder / file.name)  # a hub's snapshot is of links


def check_companions(base: Path, folder: Path) -> None:
    """Raises WorkFailed where one is missing or another than the base's: prompts would be read as other tokens."""
    for file in companions(base):
        if not (folder / file.name).exists():
            raise WorkFailed(f"{folder} has no {file.name}, which the base has; export again with --force")
        if not filecmp.cmp(file, folder / file.name, shallow=False):
            raise WorkFailed(f"{folder / file.name} is not the base's; export again with --force")
