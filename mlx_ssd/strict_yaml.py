"""Recipes are YAML, read strictly."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from mlx_ssd.errors import BadInput


class _StrictLoader(yaml.SafeLoader):
    """YAML without its two traps: a key given twice is an error, and 1e-4 is a number."""

    def construct_mapping(self, node, deep=False):
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_yaml(text: str, where: str, mapping: bool = True) -> Any:
    """What a text says; with `mapping` a mapping of sections, {} for an empty text. Raises BadInput, naming `where`."""
    try:
        value = yaml.load(text, _StrictLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark and mapping else ""
        raise BadInput(f"{where}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    except (ValueError, TypeError) as error:  # a date that is none, a list as a key
        raise BadInput(f"{where}: not valid YAML: {error}") from None
    if not mapping:
        return value
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadInput(f"{where}: a recipe is a mapping of sections such as `train:`")
    return value
