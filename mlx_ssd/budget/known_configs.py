"""The part of config.json that is read here, of models that need not be downloaded to plan with them."""

from __future__ import annotations

from typing import Any

_FOUR_BITS = {"group_size": 64, "bits": 4}  # as mlx_lm.convert has it; a mixture's routers have 8, which is nothing
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
KNOWN_CONFIGS: dict[str, dict[str, Any]] = {
    "mlx-community/Qwen3-0.6B-4bit": _QWEN3_06B,
    "mlx-community/Qwen3-4B-Instruct-2507-4bit": _QWEN3_4B,
    "mlx-community/Qwen3-4B-Thinking-2507-4bit": _QWEN3_4B,
    "mlx-community/Qwen3-8B-4bit": _QWEN3_8B,
    "mlx-community/Qwen3-30B-A3B-4bit": _QWEN3_30B_A3B,
    "mlx-community/Meta-Llama-3.1-8B-Instruct-4bit": _LLAMA_31_8B,
    # Its makers' own, in 16 bits.
    "Qwen/Qwen3-4B-Instruct-2507": {key: value for key, value in _QWEN3_4B.items() if key != "quantization"},
}
