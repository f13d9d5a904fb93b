"""What a dense Qwen3 is made of, by its config.json. Imports nothing heavy: exports are refused by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Qwen3Config:
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    eps: float
    rope_theta: float
    attention_bias: bool
    tied: bool  # the output projection is the embedding
    max_positions: int

    @classmethod
    def of(cls, config: dict[str, Any]) -> Qwen3Config:
        """Of a model that is not `unsupported`."""
        heads = config["num_attention_heads"]
        return cls(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            heads=heads,
            kv_heads=config["num_key_value_heads"],
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            vocabulary=config["vocab_size"],
            eps=config["rms_norm_eps"],
            rope_theta=_rope(config)["rope_theta"],
            attention_bias=config.get("attention_bias", False),
            tied=config.get("tie_word_embeddings", False),
            max_positions=config["max_position_embeddings"],
        )

    def cache_shape(self, context: int) -> tuple[int, int, int, int, int]:
        """[layers, 1, KV heads, context, head dimension], of the keys and of the values alike."""
        return (self.layers, 1, self.kv_heads, context, self.head_dim)


def unsupported(config: dict[str, Any]) -> str | None:
    """One sentence why a config.json is not of a model that torch_ref.qwen3 computes, or None."""
    kind = config.get("model_type")
    if kind != "qwen3":
        return f"only dense Qwen3 models are converted, and this is {kind}"
    rope = _rope(config)["rope_type"]
    if rope != "default":
        return f"only plain rotary embeddings are converted, and this model's are {rope}"
    if config.get("use_sliding_window") or "sliding_attention" in (config.get("layer_types") or ()):
        return "only full attention is converted, and some of this model's layers see a sliding window"
    if config.get("hidden_act", "silu") != "silu":
        return f"only SiLU is converted, and this model's activation is {config['hidden_act']}"
    return None


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """rope_type and rope_theta: Transformers 5 writes rope_parameters, earlier ones rope_theta and rope_scaling."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = found.get("rope_type") or found.get("type") or "default"
    return {"rope_type": kind, "rope_theta": found.get("rope_theta") or config.get("rope_theta", 10000.0)}
