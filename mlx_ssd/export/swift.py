"""A Swift package that loads an export, for those targets that apps take: RUN/export/swift/NAME.

Its sources are templates beside this file, written from the sources of the packages that they call at the versions that
their Package.swift pins. There is no Swift compiler where this project is tested: they have not been compiled.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_ssd.prompts import template_options
from mlx_ssd.storage import atomic_directory

if TYPE_CHECKING:
    from mlx_ssd.export.source import Source

TEMPLATES = Path(__file__).resolve().parent / "templates"
TARGETS = ("adapter", "mlx", "coreml", "coreai")
# The oldest systems, as in each Package.swift: of mlx-swift-lm, of Core ML's states, of Core AI.
SYSTEMS = {
    "adapter": "iOS 17, macOS 14",
    "mlx": "iOS 17, macOS 14",
    "coreml": "iOS 18, macOS 15",
    "coreai": "iOS 27, macOS 27",
}
PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


def write(source: Source, name: str, folder: str) -> Path | None:
    """Of the export in `folder` (its name in the run's export folder); None where no app takes the target."""
    if name not in TARGETS:
        return None
    package = source.exports / "swift" / folder
    values = values_of(source, name, folder)
    with atomic_directory(package) as partial:
        for file in sorted((TEMPLATES / name).rglob("*.swift")):
            written = partial / file.relative_to(TEMPLATES / name)
            written.parent.mkdir(parents=True, exist_ok=True)
            written.write_text(filled(file.read_text(encoding="utf-8"), values), encoding="utf-8")
    return package


def filled(template: str, values: dict[str, str]) -> str:
    """Raises KeyError for a placeholder that has no value."""
    return PLACEHOLDER.sub(lambda match: values[match[1]], template)


def values_of(source: Source, name: str, folder: str) -> dict[str, str]:
    """What fills the placeholders of a target's templates, as Swift source."""
    recipe = source.recipe
    decoding, system = recipe.evaluate.decoding, recipe.prompt.system
    values: dict[str, Any] = {
        "name": source.name,
        "folder": folder,
        "base": source.base_name,
        "revision": source.base.revision,
        "instructions": literal(system) if system else "nil",
        "instructions_argument": f", instructions: {literal(system)}" if system else "",
        "system": f'["role": "system", "content": {literal(system)}], ' if system else "",
        "template_options": dictionary(template_options(recipe.prompt)),
        "max_tokens": recipe.evaluate.max_tokens,
        "temperature": f"{decoding.temperature:g}",
        "top_p": f"{decoding.top_p:g}",
        "top_k": decoding.top_k,
    }
    return {key: str(value) for key, value in (values | _contract(source, name)).items()}


def literal(text: str) -> str:
    """A string of Swift: JSON's escapes are Swift's, but for numbered characters."""
    return re.sub(r"\\u([0-9a-f]{4})", r"\\u{\1}", json.dumps(text, ensure_ascii=False))


def dictionary(values: dict[str, str | bool]) -> str:
    """A dictionary of Swift."""
    pairs = (f"{literal(key)}: {literal(v) if isinstance(v, str) else json.dumps(v)}" for key, v in values.items())
    return f"[{', '.join(pairs)}]"


def _contract(source: Source, name: str) -> dict[str, Any]:
    """The names that the exporter gave to files, inputs, states and outputs."""
    if name == "coreml":
        from mlx_ssd.export.coreml import contract
        from mlx_ssd.torch_ref.qwen3_config import Qwen3Config

        return {
            "package": contract.PACKAGE,
            "tokenizer": contract.TOKENIZER,
            "context": contract.context_of(Qwen3Config.of(source.config)),
            "ids": contract.IDS,
            "mask": contract.MASK,
            "logits": contract.LOGITS,
            "states": " and ".join(contract.STATES),
        }
    if name == "coreai":
        from mlx_ssd.export.coreai import bundle

        return {
            "inputs": " and ".join(bundle.INPUTS),
            "states": " and ".join(bundle.STATES),
            "logits": bundle.LOGITS,
        }
    return {}
