"""Tiny models with random weights, of the architectures that differ in what they keep of a context."""

from typing import Any

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.models import gemma3_text, gpt_oss, llama, qwen3, qwen3_moe, qwen3_next

COMMON = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 200,
    "rms_norm_eps": 1e-6,
}
ROPE = {"rope_theta": 10_000.0, "max_position_embeddings": 2048}
MOE = {
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
}
MODELS = {
    "qwen3": (qwen3, {"model_type": "qwen3", "tie_word_embeddings": True} | ROPE),
    "llama": (llama, {"model_type": "llama", "tie_word_embeddings": False} | ROPE),
    "qwen3-moe": (qwen3_moe, {"model_type": "qwen3_moe", "tie_word_embeddings": False} | ROPE | MOE),
    # Windows that rotate: every second layer sees 24 tokens back.
    "gemma3": (
        gemma3_text,
        {"model_type": "gemma3_text", "sliding_window": 24, "sliding_window_pattern": 2, "query_pre_attn_scalar": 16},
    ),
    # Every second layer sees 24 tokens back, attention has sinks, all linear layers a bias; experts in each layer.
    "gpt-oss": (
        gpt_oss,
        {
            "model_type": "gpt_oss",
            "sliding_window": 24,
            "layer_types": ["sliding_attention", "full_attention"],
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "intermediate_size": 32,
            "rope_theta": 10_000,
        },
    ),
    # Three of four layers keep a recurrent state.
    "qwen3-next": (
        qwen3_next,
        {
            "model_type": "qwen3_next",
            "linear_num_value_heads": 2,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "linear_conv_kernel_dim": 4,
            "shared_expert_intermediate_size": 32,
            "partial_rotary_factor": 0.5,
            "full_attention_interval": 2,
        }
        | ROPE
        | MOE,
    ),
}


def tiny(name: str) -> Any:
    module, settings = MODELS[name]
    mx.random.seed(0)
    model = module.Model(module.ModelArgs(**COMMON | settings))
    model.update(tree_map(lambda x: mx.random.normal(x.shape) * 0.3 if x.ndim > 1 else x, model.parameters()))
    model.eval()
    mx.eval(model.parameters())
    return model
