"""The folder that Apple's Swift package for language models (CoreAILanguageModels) loads: metadata.json of schema 0.2,
NAME.aimodel and tokenizer/. Fields: https://github.com/apple/coreai-models (ModelBundle, LanguageConfig), August 2026.
"""

from __future__ import annotations

import datetime
import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_ssd.errors import BadInput
from mlx_ssd.storage import read_json, write_json

if TYPE_CHECKING:
    from mlx_ssd.export.source import Source

MAIN = "main"  # the function that the package calls; it takes inputs and states by their place
BASE = "base"  # beside it, where the student's update is apart
INPUTS = ("input_ids", "position_ids")  # int32 [1, S], and [1, end]: 0 ... end - 1, the cached tokens' too
STATES = ("keyCache", "valueCache")  # [layers, 1, KV heads, capacity, head dimension]
LOGITS = "logits"  # [1, S, vocabulary]; the package takes float16 alone

METADATA, TOKENIZER = "metadata.json", "tokenizer"
AGAIN = "export again with --force"
# What is longer costs memory on a phone (Qwen3-0.6B: 112 KiB a token).
MAX_CONTEXT = 4096
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "chat_template.jinja", "chat_template.json",
)  # fmt: skip


def context_length(config: dict[str, Any]) -> int:
    """Tokens, prompt and answer together, that an export holds."""
    return min(config["max_position_embeddings"], MAX_CONTEXT)


def asset_path(source: Source, folder: Path) -> Path:
    return folder / f"{source.name}.aimodel"


def public_name(source: Source) -> str:
    """Of the base: on the hub, or of its folder, whose whole path is nobody's business."""
    from mlx_ssd.models import is_hub_name

    path = source.recipe.model.path
    return path if path == "embedded" or is_hub_name(path) else source.base.path.name


def metadata(source: Source, precision: str) -> dict[str, Any]:
    """metadata.json, but for the date."""
    base = public_name(source)
    return {
        "metadata_version": "0.2",
        "kind": "llm",
        "name": source.name,
        "assets": {"main": asset_path(source, Path()).name},
        "language": {
            "tokenizer": base,
            "vocab_size": source.config["vocab_size"],
            "max_context_length": context_length(source.config),
            "embedded_tokenizer": True,
            "function_map": {MAIN: [MAIN]},
        },
        "source": {"model_definition": "torch", "hf_model_id": base},
        "compression": precision if precision == "int4" else None,
        "compilation": {"targets": []},
        "user_data": {"base_revision": source.base.revision, "student": source.revision},
    }


def write(source: Source, folder: Path, precision: str) -> None:
    """All but the asset. Raises BadInput where the base has no tokenizer.json, which alone Swift reads."""
    for name in TOKENIZER_FILES[:2]:
        if not (source.base.path / name).exists():
            raise BadInput(f"{source.base.path} has no {name}, which apps read; save its tokenizer with Transformers")
    (folder / TOKENIZER).mkdir()
    for file in _tokenizer_files(source):
        shutil.copyfile(file, folder / TOKENIZER / file.name)
    facts = metadata(source, precision)
    facts["compilation"]["date"] = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    write_json(folder / METADATA, facts)


def check(source: Source, folder: Path, precision: str) -> None:
    """Raises BadInput where the bundle is not as it was written: a field, a tokenizer file, or the asset's bytes."""
    facts = read_json(folder / METADATA)
    facts.get("compilation", {}).pop("date", None)
    if difference := _difference(facts, metadata(source, precision)):
        raise BadInput(f"{folder / METADATA}: {difference}; {AGAIN}")
    for file in _tokenizer_files(source):
        copy = folder / TOKENIZER / file.name
        if not copy.exists():
            raise BadInput(f"{copy.parent} has no {copy.name}, which the base has; {AGAIN}")
        if copy.read_bytes() != file.read_bytes():
            raise BadInput(f"{copy} is not the base's, so prompts would be read as other tokens; {AGAIN}")
    asset = asset_path(source, folder)
    for name in ("main.mlirb", "main.hash", METADATA):
        if not (asset / name).exists():
            raise BadInput(f"{asset} has no {name}; {AGAIN}")
    with open(asset / "main.mlirb", "rb") as file:
        if hashlib.file_digest(file, "sha256").digest() != (asset / "main.hash").read_bytes():
            raise BadInput(f"{asset / 'main.mlirb'} is damaged, since main.hash is of other bytes; {AGAIN}")


def _tokenizer_files(source: Source) -> list[Path]:
    return [file for name in TOKENIZER_FILES if (file := source.base.path / name).exists()]


def _difference(found: Any, expected: Any, where: str = "") -> str | None:
    if isinstance(found, dict) and isinstance(expected, dict):
        keys = sorted(found.keys() | expected.keys())
        pairs = ((found.get(key), expected.get(key), f"{where}.{key}".lstrip(".")) for key in keys)
        return next((words for pair in pairs if (words := _difference(*pair))), None)
    return None if found == expected else f"{where} is {found!r}, not {expected!r}"
