"""Bytes of a model's tensors as mlx-lm loads them, from config.json: what is quantized, in how many bits, and how.

A folder may say of a module that it has other bits than the rest, as mixed precisions do: gpt-oss's experts are MXFP4
(4 bits and a shared 8-bit exponent for 32 numbers) while the rest has 8 bits, or 16.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from reprlib import repr as shortened
from typing import Any

from mlx_ssd.budget.described import UnusualModel, whole

MXFP4 = {"group_size": 32, "bits": 4, "mode": "mxfp4"}


@dataclass(frozen=True)
class Tensor:
    """A module's weight, [count, rows, columns], and its bias where it has one."""

    path: str  # of the module, as mlx-lm names it
    rows: int
    columns: int
    count: int = 1  # experts
    bias: bool = False

    @property
    def numbers(self) -> int:
        return self.count * self.rows * (self.columns + self.bias)


def matrices(config: Mapping[str, Any]) -> Iterator[Tensor]:
    """Every matrix of a decoder in the layout of Llama, Qwen3, Qwen3-MoE and gpt-oss.

    config: with all keys that ModelSize needs.
    """
    gpt_oss = config.get("model_type") == "gpt_oss"
    hidden, vocabulary, heads = (config[k] for k in ("hidden_size", "vocab_size", "num_attention_heads"))
    head = config.get("head_dim") or hidden // heads
    query, key_value = heads * head, (config.get("num_key_value_heads") or heads) * head
    experts, _, width = mixture(config)
    attention_bias = gpt_oss or bool(config.get("attention_bias"))
    bias = gpt_oss or bool(config.get("mlp_bias"))
    block = "mlp.experts" if gpt_oss else "mlp.switch_mlp" if experts > 1 else "mlp"
    yield Tensor("model.embed_tokens", vocabulary, hidden)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        yield Tensor(f"{at}.self_attn.q_proj", query, hidden, bias=attention_bias)
        yield Tensor(f"{at}.self_attn.k_proj", key_value, hidden, bias=attention_bias)
        yield Tensor(f"{at}.self_attn.v_proj", key_value, hidden, bias=attention_bias)
        yield Tensor(f"{at}.self_attn.o_proj", hidden, query, bias=attention_bias)
        if experts > 1:
            yield Tensor(f"{at}.mlp.{'router' if gpt_oss else 'gate'}", experts, hidden, bias=gpt_oss)
        yield Tensor(f"{at}.{block}.gate_proj", width, hidden, experts, bias)
        yield Tensor(f"{at}.{block}.up_proj", width, hidden, experts, bias)
        yield Tensor(f"{at}.{block}.down_proj", hidden, width, experts, bias)
    if not config.get("tie_word_embeddings"):
        yield Tensor("lm_head", vocabulary, hidden)


def vectors(config: Mapping[str, Any]) -> int:
    """Numbers in the norms and, of gpt-oss, in the sinks of attention: a logit a head."""
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    family = str(config.get("model_type"))
    of_heads = 2 * (config.get("head_dim") or 0) if family.startswith("qwen3") else 0
    sinks = config["num_attention_heads"] if family == "gpt_oss" else 0
    return layers * (2 * hidden + of_heads + sinks) + hidden


def mixture(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """Experts, those that one token goes through, and the width of one; 1, 1 and the MLP's where there are none."""
    experts = config.get("num_experts") or config.get("num_local_experts") or 1
    used = config.get("num_experts_per_tok") or config.get("experts_per_token") or 1
    width = config["intermediate_size"]
    return experts, used if experts > 1 else 1, (config.get("moe_intermediate_size") or width) if experts > 1 else width


def tensor_bytes(tensor: Tensor, config: Mapping[str, Any], number: int) -> float:
    """number: bytes of what is not quantized, and of the scale and the bias of a group."""
    size = float(number)
    if how := quantization_of(tensor, config):
        shared = 1 if how["mode"] != "affine" else 2 * number  # MXFP4, MXFP8, NVFP4: an exponent
        size = how["bits"] / 8 + shared / how["group_size"]
    return tensor.count * tensor.rows * (tensor.columns * size + tensor.bias * number)


def quantization_of(tensor: Tensor, config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """bits, group_size and mode of a matrix; None for one that is stored as it is.

    Raises UnusualModel where the config says that it is quantized, and not how.
    """
    usual = config.get("quantization") or config.get("quantization_config") or {}
    if not isinstance(usual, Mapping):
        raise UnusualModel(f"quantization of the model's config.json is {shortened(usual)}, where an object is wanted")
    if usual.get("quant_method") == "mxfp4":  # its makers' own folder of gpt-oss: the experts alone
        return MXFP4 if ".experts." in tensor.path else None
    if "bits" not in usual:
        return None
    own = usual.get(tensor.path, True)
    how = own if isinstance(own, Mapping) else usual if own else None
    if how is None:
        return None
    bits, group = (whole(f"{key} of the quantization", how.get(key)) for key in ("bits", "group_size"))
    found = {"group_size": group, "bits": bits, "mode": how.get("mode", "affine")}
    return found if tensor.columns % group == 0 else None
