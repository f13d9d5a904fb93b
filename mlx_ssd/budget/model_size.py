"""What of a model costs bytes and seconds, from its config.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_ssd.budget.described import UnusualModel, check_numbers, decoder_of, whole
from mlx_ssd.budget.tensors import matrices, mixture, quantization_of, tensor_bytes, vectors

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}  # of a number


def stored_dtype(config: Mapping[str, Any]) -> str:
    """In which the model's numbers are stored, scales of quantized ones included: bfloat16 where it does not say."""
    config = decoder_of(config)
    named = config.get("torch_dtype") or config.get("dtype")
    return named if isinstance(named, str) and named in BYTES else "bfloat16"


def windows(config: Mapping[str, Any]) -> tuple[int, int]:
    """How many layers attend to a window of the last tokens alone, and how many tokens that is; (0, 0) without any.

    Raises UnusualModel where what the config says of them is nothing that is known.
    """
    layers, window = config["num_hidden_layers"], config.get("sliding_window")
    kinds = config.get("layer_types")
    if not kinds and config.get("model_type") == "gpt_oss":  # as mlx-lm has it
        kinds = ["sliding_attention", "full_attention"] * (layers // 2)
    if not kinds and window and (pattern := config.get("sliding_window_pattern")):  # Gemma
        whole("sliding_window_pattern", pattern)
        kinds = ["full_attention" if n % pattern == pattern - 1 else "sliding_attention" for n in range(layers)]
    if not isinstance(kinds or [], list):
        raise UnusualModel("layer_types of the model's config.json is no list")
    count = (kinds or []).count("sliding_attention") if window else 0
    return (count, whole("sliding_window", window)) if count else (0, 0)


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
    dtype: str  # in which it computes
    weight_bytes: float
    looked_up_bytes: float  # of these, the embedding where it is not the head too: only rows of it are read
    cast_bytes: float  # beside these, while numbers are made wider in loading: two of the largest tensor, as measured
    expert_bytes: float  # of these, what lies in experts
    expert_share: float  # of the experts, what one token goes through
    kv_bytes: int  # a token of context, in the layers that keep all of it
    window_bytes: int  # a row, in the layers that look back so many tokens and no further
    attention: int  # layers that attend to all x heads x head size
    adapter_parameters: int  # of rank 1, on every linear layer outside of experts
    expert_adapter_parameters: int  # of rank 1, on each expert

    @classmethod
    def of(cls, config: Mapping[str, Any], dtype: str = "auto") -> ModelSize:
        """From a config.json in the layout of Hugging Face or mlx-lm; a nested text_config counts.

        dtype: what it computes in once it is loaded (models.load); auto: as it is stored.
        Raises UnusualModel for one that does not describe a decoder of the usual kind.
        """
        config = decoder_of(config)
        check_numbers(config)
        layers, hidden, heads = (config[k] for k in ("num_hidden_layers", "hidden_size", "num_attention_heads"))
        vocabulary = config["vocab_size"]
        head = config.get("head_dim") or hidden // heads
        query, key_value = heads * head, (config.get("num_key_value_heads") or heads) * head
        experts, used, width = mixture(config)
        expert = layers * 3 * hidden * width
        embedding = vocabulary * hidden
        dtype = stored_dtype(config) if dtype == "auto" else dtype
        number = BYTES[dtype]
        all_matrices = list(matrices(config))
        small = vectors(config)
        parameters = sum(tensor.numbers for tensor in all_matrices) + small
        in_layers = sum(tensor.numbers for tensor in all_matrices if ".layers." in tensor.path) + small - hidden
        in_experts = [tensor for tensor in all_matrices if tensor.count > 1]
        quantized = any(quantization_of(tensor, config) for tensor in all_matrices)
        narrower = BYTES[stored_dtype(config)] < number and not quantized
        mlp_adapter = 3 * layers * (hidden + width)
        windowed, window = windows(config)
        return cls(
            layers=layers,
            hidden=hidden,
            mlp=width * used,
            query=query,
            key_value=key_value,
            heads=heads,
            vocabulary=vocabulary,
            parameters=parameters,
            layer_parameters=in_layers,
            # An embedding is looked up, the head is multiplied with.
            active=layers * (2 * hidden * query + 2 * hidden * key_value) + used * expert + embedding,
            dtype=dtype,
            weight_bytes=sum(tensor_bytes(tensor, config, number) for tensor in all_matrices) + small * number,
            looked_up_bytes=0 if config.get("tie_word_embeddings") else tensor_bytes(all_matrices[0], config, number),
            cast_bytes=2 * embedding * BYTES[stored_dtype(config)] if narrower else 0,
            expert_bytes=sum(tensor_bytes(tensor, config, number) for tensor in in_experts),
            expert_share=used / experts,
            kv_bytes=2 * (layers - windowed) * key_value * number,
            window_bytes=2 * windowed * window * key_value * number,
            attention=(layers - windowed) * query,
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
        return read_bytes(self.weight_bytes, self.looked_up_bytes, self.expert_bytes, self.expert_share, rows)


def read_bytes(weights: float, looked_up: float, experts: float, expert_share: float, rows: int) -> float:
    """The bytes of weights that a decoding step of so many rows reads: all but an embedding of which only rows are
    looked up, and experts that no row goes through."""
    return weights - looked_up - (1 - expert_share) ** rows * experts
