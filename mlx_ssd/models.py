"""Find, load and attach: the one seam to mlx_lm.load."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mlx_ssd import assets
from mlx_ssd.errors import BadInput, OutOfMemory, is_of_memory
from mlx_ssd.sections import Model
from mlx_ssd.storage import hash_json, hash_path, read_json

# What makes a model. mlx_lm.load itself would fetch these and code, but trust_remote_code is never given.
MODEL_FILES = ("*.json", "model*.safetensors", "tokenizer.model", "*.tiktoken", "*.txt", "*.jinja")


@dataclass(frozen=True)
class ModelSource:
    """A model on this disk. `revision` names its exact weights: a hub commit, or a hash of the folder. name: what it
    was asked for by."""

    path: Path
    revision: str
    name: str = field(default="", compare=False)


@dataclass(frozen=True)
class Origin:
    """What a model was loaded from. dtype: as it was asked for, or as this machine has "auto"."""

    source: ModelSource
    dtype: str
    adapter: Path | None


def locate(model: Model) -> ModelSource:
    """Where the recipe's model is; a hub model is downloaded first. Imports no array library.

    Raises BadInput when there is no such model or its folder is incomplete.
    """
    if model.path == "embedded":
        path = assets.model_path()
    elif Path(model.path).expanduser().is_dir():
        path = Path(model.path).expanduser()
    elif is_hub_name(model.path):
        return _from_hub(model.path, model.revision)
    else:
        raise BadInput(f"model.path: no folder {model.path!r}; give a folder, a hub name owner/name, or 'embedded'")
    for pattern in ("config.json", "*.safetensors", "tokenizer*.json"):
        if not any(path.glob(pattern)):
            raise BadInput(f"model.path: {path} has no {pattern}; it must be a folder in Hugging Face layout")
    parts = sorted({file for pattern in MODEL_FILES for file in path.glob(pattern)})
    hashes = [[file.name, _hash_unchanged(file, file.stat().st_size, file.stat().st_mtime_ns)] for file in parts]
    return ModelSource(path, hash_json(hashes)[:16], model.path)


@cache
def _hash_unchanged(file: Path, size: int, modified_ns: int) -> str:
    """Gigabytes need not be read again as long as the file is the same."""
    return hash_path(file)


def revision_of(source: ModelSource, adapter: Path | None) -> str:
    """What names the weights of a model, its adapter included, in journals."""
    return source.revision if adapter is None else f"{source.revision}+{hash_path(adapter)[:16]}"


def is_hub_name(path: str) -> bool:
    """Whether a model's path means OWNER/NAME on the hub; a folder of that name comes first."""
    return (
        path.count("/") == 1
        and not path.startswith((".", "/", "~"))
        and not path.endswith("/")
        and not Path(path).is_dir()
    )


def confirm_download(model: Model, ask: Callable[[str], bool] | None) -> None:
    """Have what `locate` would download confirmed first, with its size; a model that is here asks nothing.

    `ask` puts a question to the user; None where nobody can be asked. Raises BadInput where the answer is no, or
    there is none.
    """
    if model.path == "embedded" or not is_hub_name(model.path):
        return
    size = download_bytes(model.path, model.revision)
    confirm(model.path, size, ask, "--model takes a folder on this disk too")


def confirm(name: str, size: int, ask: Callable[[str], bool] | None, instead: str) -> None:
    """Have a download of `size` bytes confirmed; of none, nothing is asked. `instead` is what can be done without."""
    if not size:
        return
    what = f"{name}: {_readable(size)} to download from the hub, once"
    if ask is None:
        raise BadInput(f"{what}; confirm it with --yes, since there is no terminal to ask at")
    if not ask(f"{what}. Download?"):
        raise BadInput(f"{name} was not downloaded; {instead}")


def download_bytes(name: str, revision: str | None) -> int:
    """Bytes of a hub model that are not on this disk yet. Downloads nothing.

    Raises BadInput when it is not here and the hub does not give it.
    """
    files = _snapshot(name, revision, dry_run=True)
    return sum(file.file_size or 0 for file in files if file.will_download)


def read_config(model: Model) -> dict[str, Any]:
    """config.json of a model; of a hub model that is not here only this file is downloaded."""
    if model.path != "embedded" and is_hub_name(model.path):
        return read_json(Path(_snapshot(model.path, model.revision, allow_patterns=["config.json"])) / "config.json")
    return read_json(locate(model).path / "config.json")


def cached_config(model: Model) -> dict[str, Any] | None:
    """config.json of a hub model, if it was downloaded before. Asks no network."""
    path = _cached(model, "config.json")
    return read_json(path) if path else None


def is_cached(model: Model) -> bool:
    """Whether a hub model's weights were downloaded before. Asks no network."""
    return any(_cached(model, name) for name in ("model.safetensors", "model.safetensors.index.json"))


def _cached(model: Model, file: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model.path, file, revision=model.revision) if is_hub_name(model.path) else None
    return Path(found) if isinstance(found, str) else None


def _readable(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _from_hub(name: str, revision: str | None) -> ModelSource:
    path = Path(_snapshot(name, revision))
    return ModelSource(path, path.name, name)  # a snapshot's folder is named by its commit


def _snapshot(name: str, revision: str | None, **options: Any) -> Any:
    """huggingface_hub's snapshot_download: of what makes a model, from the cache where there is no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import DryRunError, HfHubHTTPError

    options = {"allow_patterns": list(MODEL_FILES)} | options
    try:
        try:
            return snapshot_download(name, revision=revision, **options)
        except DryRunError as error:
            if isinstance(error.__cause__, HfHubHTTPError):  # the hub answered: a gated model, for example
                raise error.__cause__ from None
            # No network: is it all here?
            snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=options["allow_patterns"])
            return []
    except Exception as error:  # whatever network, hub and disk raise
        if reason := _of_the_disk(error):
            raise BadInput(f"model.path: {name} cannot be downloaded: {reason}") from None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
        raise BadInput(
            f"model.path: {name} is neither a folder here nor to be had from the hub ({reason}); "
            "check the name, the network, or `hf auth login` for a gated model"
        ) from None


def _of_the_disk(error: Exception) -> str | None:
    from huggingface_hub import constants

    number, cache = getattr(error, "errno", None), constants.HF_HUB_CACHE
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left in {cache}; make room, or set HF_HOME to another place"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission to write in {cache}; change that, or set HF_HOME to another place"
    return None


def without_pytorch() -> None:
    """Import Transformers as where PyTorch is not installed: MLX takes only tokenizers from it, and it would import
    PyTorch, more than all else that a process starts with. PyTorch itself can be imported afterwards, but not
    Transformers' models: for processes that compute with MLX alone. Without effect once Transformers is imported.
    """
    if "transformers" in sys.modules or "torch" in sys.modules:
        return
    sys.modules["torch"] = None  # to Python: there is none
    try:
        import transformers  # noqa: F401
    finally:
        del sys.modules["torch"]


def load(
    source: ModelSource, dtype: str = "auto", adapter: Path | None = None, lazy: bool = False
) -> tuple[Any, Any]:
    """(model, tokenizer) as mlx_lm loads them, the adapter attached, in evaluation mode.

    dtype "auto" means as stored on a GPU and float32 on a CPU, where half precision does not go
    through BLAS and is many times slower. lazy: a weight is read when it is first used. Sets MLX's memory limits.
    Raises BadInput when a file is missing or corrupt, OutOfMemory where there is no room for it.
    """
    import mlx.core as mx
    import mlx_lm

    from mlx_ssd.machine.working_set import keep_mlx_within

    keep_mlx_within()
    try:
        model, tokenizer = mlx_lm.load(str(source.path), adapter_path=str(adapter) if adapter else None, lazy=lazy)
        if dtype == "auto" and not mx.metal.is_available():
            dtype = "float32"
        if dtype != "auto":
            model.set_dtype(getattr(mx, dtype))
        if not lazy:
            mx.eval(model.parameters())
    except Exception as error:  # whatever the loader meets in a damaged folder
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if is_of_memory(error):
            raise OutOfMemory(f"there is not enough memory to load {source.path}: {reason}") from error
        what = f"the model {source.path}" + (f" with adapter {adapter}" if adapter else "")
        raise BadInput(f"cannot load {what}: {reason}") from error
    model.eval()
    model._origin = Origin(source, dtype, adapter)
    return model, tokenizer


def origin(model: Any) -> Origin | None:
    """What `load` made a model from; None of a model that it did not load."""
    return getattr(model, "_origin", None)


def load_generating_tokenizer(source: ModelSource) -> Any:
    """The tokenizer as `load` gives it, which knows every token that ends a turn, without the model."""
    from mlx_lm import utils

    try:
        ends = utils.load_config(source.path).get("eos_token_id")
        return utils.load_tokenizer(source.path, eos_token_ids=ends)
    except Exception as error:  # whatever the loader meets in a damaged folder
        raise _unreadable_tokenizer(source, error) from error


def load_tokenizer(source: ModelSource) -> Any:
    """The tokenizer alone, without the array library."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source.path, trust_remote_code=False)
    except Exception as error:  # whatever the loader meets in a damaged folder
        raise _unreadable_tokenizer(source, error) from error


def _unreadable_tokenizer(source: ModelSource, error: Exception) -> BadInput:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return BadInput(f"cannot load the tokenizer of {source.path}: {reason}")


def context_length(model: Any) -> int | None:
    """The most tokens, prompt and completion together, that a model of mlx-lm or of Transformers was made for."""
    described = getattr(model, "args", None) or getattr(model, "config", None)
    return getattr(described, "max_position_embeddings", None)
