"""The part of config.json that is read here, of models that need not be downloaded to plan with them."""

from __future__ import annotations

from typing import Any

from mlx_ssd.budget.tensors import MXFP4

_FOUR_BITS = {"group_size": 64, "bits": 4}  # as mlx_lm.convert has it
_EIGHT_BITS = {"group_size": 64, "bits": 8}
_QWEN3 = {
    "model_type": "qwen3",
    "head_dim": 128,
    "num_key_value_heads": 8,
    "quantization": _FOUR_BITS,
    "vocab_size": 151936,
}
_QWEN3_06B = _QWEN3 | {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "tie_word_embeddings": True,
}
_QWEN3_4B = _QWEN3 | {
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "tie_word_embeddings": True,
}
_QWEN3_8B = _QWEN3 | {
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "tie_word_embeddings": False,
}
_QWEN3_30B_A3B = _QWEN3 | {
    "model_type": "qwen3_moe",
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
}
_QWEN3_30B_A3B["quantization"] = _FOUR_BITS | {f"model.layers.{n}.mlp.gate": _EIGHT_BITS for n in range(48)}
_LLAMA_31_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "quantization": _FOUR_BITS,
    "tie_word_embeddings": False,
    "vocab_size": 128256,
}
_GPT_OSS_20B = {
    "model_type": "gpt_oss",
    "head_dim": 64,
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "sliding_window": 128,  # in every second layer
    "tie_word_embeddings": False,
    "vocab_size": 201088,
    "quantization_config": {"quant_method": "mxfp4"},  # its makers' own: the experts, all else in 16 bits
}
# MXFP4-Q8: the experts as they came, all else in 8 bits.
_BESIDE_EXPERTS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.router")
_GPT_OSS_20B_Q8 = _GPT_OSS_20B | {
    "quantization": MXFP4
    | {f"model.layers.{n}.{name}": _EIGHT_BITS for n in range(24) for name in _BESIDE_EXPERTS}
    | {"model.embed_tokens": _EIGHT_BITS, "lm_head": _EIGHT_BITS}
}


def _as_made(config: dict[str, Any]) -> dict[str, Any]:
    """Its makers' own, in 16 bits."""
    return {key: value for key, value in config.items() if key != "quantization"}


KNOWN_CONFIGS: dict[str, dict[str, Any]] = {
    "mlx-community/Qwen3-0.6B-4bit": _QWEN3_06B,
    "mlx-community/Qwen3-4B-Instruct-2507-4bit": _QWEN3_4B,
    "mlx-community/Qwen3-4B-Thinking-2507-4bit": _QWEN3_4B,
    "mlx-community/Qwen3-8B-4bit": _QWEN3_8B,
    "mlx-community/Qwen3-30B-A3B-4bit": _QWEN3_30B_A3B,
    "mlx-community/Qwen3-30B-A3B-Instruct-2507-4bit": _QWEN3_30B_A3B,
    "mlx-community/Qwen3-30B-A3B-Thinking-2507-4bit": _QWEN3_30B_A3B,
    "mlx-community/Meta-Llama-3.1-8B-Instruct-4bit": _LLAMA_31_8B,
    "mlx-community/gpt-oss-20b-MXFP4-Q8": _GPT_OSS_20B_Q8,
    "Qwen/Qwen3-4B-Instruct-2507": _as_made(_QWEN3_4B),
    "Qwen/Qwen3-4B-Thinking-2507": _as_made(_QWEN3_4B),
    "Qwen/Qwen3-30B-A3B-Instruct-2507": _as_made(_QWEN3_30B_A3B),
    "Qwen/Qwen3-30B-A3B-Thinking-2507": _as_made(_QWEN3_30B_A3B),
    "meta-llama/Llama-3.1-8B-Instruct": _as_made(_LLAMA_31_8B),
    "openai/gpt-oss-20b": _GPT_OSS_20B,
}
