"""The decoder that a config.json describes: the part of it that does, and its numbers, checked before they are used."""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as shortened
from typing import Any

from mlx_ssd.errors import BadInput

QUANTIZATION = ("quantization", "quantization_config")
STORED = ("torch_dtype", "dtype")
WRAPPED = "language_model."  # what mlx-lm calls the decoder of a model that has other parts too
NEEDED = ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size", "intermediate_size")
# Absent, null and 0 mean the same of these.
OPTIONAL = (
    "head_dim", "num_key_value_heads", "num_experts", "num_local_experts", "num_experts_per_tok", "experts_per_token",
    "moe_intermediate_size",
)  # fmt: skip


class UnusualModel(BadInput):
    """One whose config.json does not say what is needed to compute its size."""


def decoder_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of the decoder alone: text_config where there is one, quantized as the whole is.

    mlx-lm writes what is quantized beside text_config, with the modules' paths in the whole model; here they are those
    in the decoder. Raises UnusualModel for what is no JSON object.
    """
    if not isinstance(config, Mapping):
        raise UnusualModel(f"the model's config.json is {shortened(config)}, where an object is wanted")
    inner = config.get("text_config")
    if not inner:
        return config
    if not isinstance(inner, Mapping):
        raise UnusualModel(f"text_config of the model's config.json is {shortened(inner)}, where an object is wanted")
    found = dict(inner)
    if not any(found.get(key) for key in STORED):
        found |= {key: config[key] for key in STORED if key in config}
    whole = {key: _in_decoder(config[key]) for key in QUANTIZATION if config.get(key)}
    if whole:  # then mlx-lm looks no further
        found = {key: value for key, value in found.items() if key not in QUANTIZATION} | whole
    return found


def _in_decoder(quantization: Any) -> Any:
    if not isinstance(quantization, Mapping):
        return quantization
    return {key.removeprefix(WRAPPED): value for key, value in quantization.items()}


def check_numbers(config: Mapping[str, Any]) -> None:
    """Raise UnusualModel where a decoder's config lacks a width or a count, or has something else in its place."""
    for key in NEEDED:
        if key not in config:
            raise UnusualModel(f"the model's config.json has no {key!r}")
        whole(key, config[key])
    for key in OPTIONAL:
        if config.get(key):
            whole(key, config[key])
    if not config.get("head_dim") and config["num_attention_heads"] > config["hidden_size"]:
        raise UnusualModel("num_attention_heads of the model's config.json is more than its hidden_size")


def whole(key: str, value: Any) -> int:
    """The value, if it is a whole number above 0; raises UnusualModel for anything else."""
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        found = shortened(value)
        raise UnusualModel(f"{key} of the model's config.json is {found}, where a whole number above 0 is wanted")
    return value
