"""What of a model costs bytes and seconds, from its config.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_ssd.errors import BadInput

# What a backward pass holds: bytes a token and trained layer for each unit of hidden size, MLP, query and key-value
# width, in bfloat16. Measured on Linux: `python -m benchmarks.training_memory`.
ACTIVATION_BYTES = {"hidden": 32, "mlp": 13, "query": 11, "key_value": 18}


@dataclass(frozen=True)
class ModelSize:
    """What of a model costs bytes and seconds."""

    layers: int
    parameters: int
    active: int  # parameters that a token is multiplied with
    weight_bytes: float
    expert_bytes: float  # of these, what lies in experts
    expert_share: float  # of the experts, what one token goes through
    kv_bytes: int  # a token of context
    attention: int  # layers x heads x head size
    hidden: int
    heads: int
    activation_bytes: int  # of a token in one layer, kept for the backward pass
    adapter_parameters: int  # of rank 1, on every linear layer but those of experts
    expert_adapter_parameters: int  # of rank 1, on every expert
    vocabulary: int

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
        mlps = layers * 3 * experts * (hidden + width)
        embedding = vocabulary * hidden
        parameters = attention + experts * expert + embedding * (1 if config.get("tie_word_embeddings") else 2)
        quantization = config.get("quantization") or config.get("quantization_config") or {}
        bits = 32.0 if (config.get("torch_dtype") or config.get("dtype")) == "float32" else 16.0
        if "bits" in quantization:
            bits = quantization["bits"] + 32 / (quantization.get("group_size") or 64)
        widths = {"hidden": hidden, "mlp": width * used, "query": query, "key_value": key_value}
        return cls(
            layers=layers,
            parameters=parameters,
            active=attention + used * expert + embedding,  # an embedding is looked up, the head is multiplied with
            weight_bytes=parameters * bits / 8,
            expert_bytes=experts * expert * bits / 8,
            expert_share=used / experts,
            kv_bytes=2 * layers * key_value * 2,
            attention=layers * query,
            hidden=hidden,
            heads=heads,
            activation_bytes=sum(ACTIVATION_BYTES[name] * width for name, width in widths.items()),
            adapter_parameters=layers * 2 * (2 * hidden + query + key_value) + (0 if experts > 1 else mlps),
            expert_adapter_parameters=mlps if experts > 1 else 0,
            vocabulary=vocabulary,
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
