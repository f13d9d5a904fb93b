"""What of a model costs bytes and seconds, from its config.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_ssd.errors import BadInput

_QWEN3_4B = {
    "head_dim": 128,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "quantization": {"group_size": 64, "bits": 4},
    "tie_word_embeddings": True,
    "vocab_size": 151936,
}
# The part of config.json that is read here, of models that need not be downloaded to plan with them.
KNOWN_CONFIGS: dict[str, dict[str, Any]] = {
    "mlx-community/Qwen3-4B-Instruct-2507-4bit": _QWEN3_4B,
    "mlx-community/Qwen3-4B-Thinking-2507-4bit": _QWEN3_4B,
}


@dataclass(frozen=True)
class ModelSize:
    """What of a model costs bytes and seconds."""

    layers: int
    hidden: int
    mlp: int  # width that one token goes through, in a mixture that of its experts together
    query: int  # width: heads x head size
    key_value: int
    heads: int
    vocabulary: int
    parameters: int
    layer_parameters: int  # of these, what lies in the layers: not the embedding and the head
    active: int  # parameters that a token is multiplied with
    weight_bytes: float
    expert_bytes: float  # of these, what lies in experts
    expert_share: float  # of the experts, what one token goes through
    kv_bytes: int  # a token of context
    attention: int  # layers x heads x head size
    adapter_parameters: int  # of rank 1, on every linear layer outside of experts
    expert_adapter_parameters: int  # of rank 1, on each expert

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ModelSize:
        """From a config.json in the layout of Hugging Face or mlx-lm; a nested text_config counts.

        Raises BadInput for one that does not describe a decoder of the usual kind.
        """
        config = config.get("text_config") or config
        try:
            layers, hidden, heads = (config[k] for k in ("num_hidden_layers", "hidden_size", "num_attention_heads"))
            vocabulary, mlp = config["vocab_size"], config["intermediate_size"]
        except KeyError as missing:
            raise BadInput(f"the model's config.json has no {missing}; give problems.train.limit yourself") from None
        head = config.get("head_dim") or hidden // heads
        query, key_value = heads * head, (config.get("num_key_value_heads") or heads) * head
        experts = config.get("num_experts") or config.get("num_local_experts") or 1
        used = config.get("num_experts_per_tok") or 1
        width = (config.get("moe_intermediate_size") or mlp) if experts > 1 else mlp
        attention = layers * (2 * hidden * query + 2 * hidden * key_value)
        expert = layers * 3 * hidden * width
        embedding = vocabulary * hidden
        layer_parameters = attention + experts * expert
        parameters = layer_parameters + embedding * (1 if config.get("tie_word_embeddings") else 2)
        quantization = config.get("quantization") or config.get("quantization_config") or {}
        bits = 32.0 if (config.get("torch_dtype") or config.get("dtype")) == "float32" else 16.0
        if "bits" in quantization:
            bits = quantization["bits"] + 32 / (quantization.get("group_size") or 64)
        mlp_adapter = 3 * layers * (hidden + width)
        return cls(
            layers=layers,
            hidden=hidden,
            mlp=width * used,
            query=query,
            key_value=key_value,
            heads=heads,
            vocabulary=vocabulary,
            parameters=parameters,
            layer_parameters=layer_parameters,
            active=attention + used * expert + embedding,  # an embedding is looked up, the head is multiplied with
            weight_bytes=parameters * bits / 8,
            expert_bytes=experts * expert * bits / 8,
            expert_share=used / experts,
            kv_bytes=2 * layers * key_value * 2,
            attention=layers * query,
            adapter_parameters=layers * (2 * (hidden + query) + 2 * (hidden + key_value))
            + (mlp_adapter if experts == 1 else layers * (hidden + experts)),  # of a mixture, the router
            expert_adapter_parameters=mlp_adapter * experts if experts > 1 else 0,
        )

    def flops(self, context: float) -> float:
        """F(c)."""
        return 2 * self.active + 4 * self.attention * context

    def trained_share(self, num_layers: int) -> float:
        """S of a recipe's train.num_layers."""
        return 1.0 if num_layers < 0 else min(num_layers / self.layers, 1.0)

    def read_bytes(self, rows: int) -> float:
        """The weights that a decoding step of so many rows reads: of experts those that some row goes through."""
        idle = (1 - self.expert_share) ** rows
        return self.weight_bytes - idle * self.expert_bytes
