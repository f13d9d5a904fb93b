"""A recipe's settings before they are checked: laid over one another; and in one sentence what the check found."""

from __future__ import annotations

import difflib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

# Sections that can be written as one value: what that stands for.
SHORT = {"rounds": lambda count: {} if count is None else {"count": count}}


def put(settings: dict[str, Any], key: str, value: Any) -> None:
    """Lay section.key = value over settings, which are changed; sections that others share are copied first."""
    *sections, last = key.split(".")
    for section in sections:
        inner = settings.get(section)
        inner = dict(inner) if isinstance(inner, dict) else SHORT.get(section, lambda _: {})(inner)
        settings[section] = inner
        settings = inner
    settings[last] = value


def known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """section.key of every setting there is."""
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        kind = field.annotation
        inner = [kind, *get_args(kind)]
        keys += [
            key
            for part in inner
            if isinstance(part, type) and issubclass(part, BaseModel)
            for key in known_keys(part, f"{prefix}{name}.")
        ]
    return keys


def sentence(error: ValidationError, whole: type[BaseModel], where: str, overridden: set[str]) -> str:
    """What is wrong first: where it stands (`where`, or --set for a key of `overridden`), the key, what to write."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    source = "--set" if any(key == o or key.startswith(f"{o}.") for o in overridden) else where
    if first["type"] == "extra_forbidden":
        known = known_keys(whole)
        # The same word in another section is a likelier slip than another word in the same one.
        last = key.rsplit(".", 1)[-1]
        near = [k for k in known if k.rsplit(".", 1)[-1] == last] or difflib.get_close_matches(key, known, n=1)
        mend = f"did you mean {near[0]}?" if near else "see `mlx-ssd recipes show quickstart`"
        return f"{source}: {key} is not a setting; {mend}"
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    given = first.get("input")
    if not isinstance(given, (dict, BaseModel)):
        message += f", not {given!r}"
    return f"{source}: {key}: {message}" if key else f"{where}: {message}"
