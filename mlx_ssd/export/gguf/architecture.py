"""The two architectures that are written: dense Qwen3 and Llama, between Hugging Face's names and GGUF's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mlx_ssd.errors import BadInput

if TYPE_CHECKING:
    import gguf
    import numpy as np

ROPE_FACTORS = "rope_freqs.weight"  # a tensor that Hugging Face has no name for
MODEL_TYPES = ("qwen3", "llama")  # of config.json, and the names of their architectures in GGUF
# Back from GGUF's names; the way there is the gguf package's own table.
MODULES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def refuse(config: dict[str, Any]) -> str | None:
    """One sentence why a model of this config.json cannot be written, or None."""
    kind = config.get("model_type")
    if kind not in MODEL_TYPES:
        return f"models of type {', '.join(MODEL_TYPES)} are written as GGUF, not {kind}; --target hf or mlx has it"
    if _scaling(config) not in ("default", *(["llama3"] if kind == "llama" else [])):
        return f"its rotary embedding is scaled ({_scaling(config)}), which is not written; --target hf or mlx has it"
    if config.get("use_sliding_window") or {*config.get("layer_types", ())} - {"full_attention"}:
        return "its attention slides over a window, which is not written; --target hf or mlx has it"
    if config.get("attention_bias") or config.get("mlp_bias"):
        return "its linear layers have biases, which are not written; --target hf or mlx has it"
    return None


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    return config.get("rope_scaling") or config.get("rope_parameters") or {}


def _scaling(config: dict[str, Any]) -> str:
    return _rope(config).get("rope_type") or _rope(config).get("type") or "default"


def rope_factors(config: dict[str, Any]) -> np.ndarray | None:
    """float32 [head size / 2]: what llama.cpp divides the frequencies by, lowest dimension first; None without scaling.

    Llama 3.1's: waves longer than the context it began with, over `low_freq_factor`, are stretched by `factor`, those
    shorter than that context over `high_freq_factor` not at all, and those in between by something in between.
    """
    import numpy as np

    if _scaling(config) != "llama3":
        return None
    settings, size = _rope(config), _head_size(config)
    low, high, factor = (settings[key] for key in ("low_freq_factor", "high_freq_factor", "factor"))
    waves = 2 * np.pi * _rope_base(config) ** (np.arange(0, size, 2) / size)  # tokens a turn
    kept = np.clip((settings["original_max_position_embeddings"] / waves - low) / (high - low), 0, 1)
    return (1 / ((1 - kept) / factor + kept)).astype(np.float32)


def _rope_base(config: dict[str, Any]) -> float:
    return float(config.get("rope_theta") or (config.get("rope_parameters") or {}).get("rope_theta") or 10_000.0)


def _head_size(config: dict[str, Any]) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def hyperparameters(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    """The keys that llama.cpp builds the model from."""
    heads = config["num_attention_heads"]
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(_head_size(config))
    writer.add_value_length(_head_size(config))
    writer.add_rope_dimension_count(_head_size(config))
    writer.add_rope_freq_base(_rope_base(config))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def file_config(fields: dict[str, Any], tied: bool) -> dict[str, Any]:
    """config.json of a file's fields. `tied`: it has no head of its own."""
    kind = fields["general.architecture"]
    return {
        "model_type": kind,
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "max_position_embeddings": fields[f"{kind}.context_length"],
        "hidden_size": fields[f"{kind}.embedding_length"],
        "num_hidden_layers": fields[f"{kind}.block_count"],
        "intermediate_size": fields[f"{kind}.feed_forward_length"],
        "num_attention_heads": fields[f"{kind}.attention.head_count"],
        "num_key_value_heads": fields[f"{kind}.attention.head_count_kv"],
        "head_dim": fields[f"{kind}.attention.key_length"],
        "rope_theta": fields[f"{kind}.rope.freq_base"],
        "rms_norm_eps": fields[f"{kind}.attention.layer_norm_rms_epsilon"],
        "tie_word_embeddings": tied,
    }


def stored_names(config: dict[str, Any], names: Iterable[str]) -> dict[str, str]:
    """Hugging Face's name -> GGUF's, in the given order. A head that is the embedding is left out.

    Raises BadInput for a tensor that the architecture does not have.
    """
    import gguf

    architecture = gguf.MODEL_ARCH[config["model_type"].upper()]
    table = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    if config.get("tie_word_embeddings"):
        names = [name for name in names if name != "lm_head.weight"]
    found = {name: table.get_name(name, try_suffixes=(".weight",)) for name in names}
    if strange := [name for name, stored in found.items() if stored is None]:
        raise BadInput(f"GGUF has no place for {strange[0]} in a {config['model_type']}; --target hf or mlx takes any")
    return found


def original_name(stored: str) -> str:
    """GGUF's name -> Hugging Face's: blk.3.attn_q.weight, output_norm.weight."""
    *layer, module, kind = stored.split(".")
    prefix = f"model.layers.{layer[1]}." if layer else ""
    return f"{prefix}{MODULES[module]}.{kind}"


def paired(config: dict[str, Any], name: str, weight: np.ndarray) -> np.ndarray:
    """A weight [out, in] of Hugging Face as llama.cpp has it.

    In its Llama the two dimensions that rotary embedding turns together lie beside each other, in Hugging Face's half
    a head apart: the rows of queries and keys are put in another order. Its Qwen3 is like Hugging Face's.
    """
    heads = _turned(config, name)
    return weight.reshape(heads, 2, -1, weight.shape[-1]).swapaxes(1, 2).reshape(weight.shape) if heads else weight


def unpaired(config: dict[str, Any], name: str, weight: np.ndarray) -> np.ndarray:
    """The reverse of `paired`; `name` is Hugging Face's in both."""
    heads = _turned(config, name)
    return weight.reshape(heads, -1, 2, weight.shape[-1]).swapaxes(1, 2).reshape(weight.shape) if heads else weight


def _turned(config: dict[str, Any], name: str) -> int | None:
    """How many heads' rows are put in another order; None where none are."""
    if config["model_type"] != "llama":
        return None
    heads = config["num_attention_heads"]
    return {"q_proj": heads, "k_proj": config.get("num_key_value_heads") or heads}.get(name.split(".")[-2])
