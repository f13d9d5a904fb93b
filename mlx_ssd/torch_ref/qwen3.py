"""Dense Qwen3 with a key-value cache that it writes in place: the form that converters accept.

Transformers' own model is not convertible (its mask code), and keeps its cache in a Python object. Parameters have
Transformers' names. The caches hold every layer: [layers, 1, KV heads, context, head dimension]. A call appends S
tokens; where they go is said by the mask alone, [1, 1, S, end]: after the `end` - S tokens that are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlx_ssd.errors import BadInput
from mlx_ssd.torch_ref.qwen3_config import Qwen3Config

# Finite, since -inf in float16 arithmetic may give nan; exp(-1e4) is 0 in any precision.
MASKED = -1e4

Factors = Mapping[str, tuple[np.ndarray, np.ndarray, float]]


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps), computed on x / (max |x| + sqrt(eps)), which is within [-1, 1].

    In float16 the square of anything over 255 is infinite, and the residual stream of real models holds thousands.
    """

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        # A tensor in the model's own precision, and no division: converters make numbers and quotients float32, and
        # with them every weight that they meet; and to what a reciprocal is taken of, Core ML adds 1e-4.
        self.register_buffer("root_eps", torch.tensor([eps**0.5], device="cpu"), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        root = torch.rsqrt(x.abs().amax(-1, keepdim=True) + self.root_eps)
        x, rest = x * root * root, self.root_eps * root * root
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + rest * rest) * self.weight


class LoraLinear(nn.Module):
    """y = x W' + (x A) (scale * B): the update unfused, so that several adapters share W."""

    def __init__(self, linear: nn.Linear, a: np.ndarray, b: np.ndarray, scale: float):
        super().__init__()
        self.linear = linear
        for name, factor in (("lora_a", a.T), ("lora_b", scale * b.T)):
            tensor = torch.from_numpy(np.ascontiguousarray(factor)).to(linear.weight.dtype)
            self.register_parameter(name, nn.Parameter(tensor, requires_grad=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + F.linear(F.linear(x, self.lora_a), self.lora_b)


class Attention(nn.Module):
    def __init__(self, config: Qwen3Config, layer: int):
        super().__init__()
        self.layer, self.heads, self.kv_heads, self.head_dim = layer, config.heads, config.kv_heads, config.head_dim
        wide, narrow, bias = config.heads * config.head_dim, config.kv_heads * config.head_dim, config.attention_bias
        self.q_proj = nn.Linear(config.hidden, wide, bias)
        self.k_proj = nn.Linear(config.hidden, narrow, bias)
        self.v_proj = nn.Linear(config.hidden, narrow, bias)
        self.o_proj = nn.Linear(wide, config.hidden, bias)
        self.q_norm = RMSNorm(config.head_dim, config.eps)
        self.k_norm = RMSNorm(config.head_dim, config.eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, k_cache: Tensor, v_cache: Tensor) -> Tensor:
        count, end = x.shape[1], mask.shape[-1]
        past = end - count
        q = self.q_norm(self.q_proj(x).view(1, count, self.heads, self.head_dim)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(1, count, self.kv_heads, self.head_dim)).transpose(1, 2)
        v = self.v_proj(x).view(1, count, self.kv_heads, self.head_dim).transpose(1, 2)
        # These very forms: others are not converted, or give graphs that do not run. The casts do nothing here;
        # Core ML's converter reads caches and mask as float32, and would make float32 of all that follows.
        k_cache[self.layer, :, :, past:end, :] = k * cos + _rotated(k) * sin
        v_cache[self.layer, :, :, past:end, :] = v
        k, v = (self._for_each_head(cache[self.layer, :, :, :end, :].to(q.dtype)) for cache in (k_cache, v_cache))
        found = F.scaled_dot_product_attention(q * cos + _rotated(q) * sin, k, v, attn_mask=mask.to(q.dtype))
        return self.o_proj(found.transpose(1, 2).reshape(1, count, self.heads * self.head_dim))

    def _for_each_head(self, x: Tensor) -> Tensor:
        """[1, KV heads, n, d] -> [1, heads, n, d]."""
        group = self.heads // self.kv_heads
        return x.unsqueeze(2).expand(-1, -1, group, -1, -1).reshape(1, self.heads, -1, self.head_dim)


class MLP(nn.Module):
    def __init__(self, config: Qwen3Config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden, config.intermediate, False)
        self.up_proj = nn.Linear(config.hidden, config.intermediate, False)
        self.down_proj = nn.Linear(config.intermediate, config.hidden, False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config: Qwen3Config, layer: int):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden, config.eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden, config.eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, *attention: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), *attention)
        return x + self.mlp(self.post_attention_layernorm(x))


class Stack(nn.Module):
    """From token ids [1, S] to states [1, S, hidden], for at most `context` positions."""

    def __init__(self, config: Qwen3Config, context: int):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocabulary, config.hidden)
        self.layers = nn.ModuleList(Layer(config, layer) for layer in range(config.layers))
        self.norm = RMSNorm(config.hidden, config.eps)
        for name, table in zip(("cos", "sin"), rope_tables(config, context), strict=True):
            self.register_buffer(name, table, persistent=False)

    def forward(self, input_ids: Tensor, mask: Tensor, k_cache: Tensor, v_cache: Tensor) -> Tensor:
        end = mask.shape[-1]
        past = end - input_ids.shape[1]
        cos, sin = self.cos[past:end], self.sin[past:end]
        x = self.embed_tokens(input_ids)
        for layer in self.layers:
            x = layer(x, cos, sin, mask, k_cache, v_cache)
        return self.norm(x)


class Qwen3(nn.Module):
    """Logits [1, S, vocabulary] after each of S tokens."""

    def __init__(self, config: Qwen3Config, context: int):
        super().__init__()
        self.config, self.context = config, context
        self.model = Stack(config, context)
        self.lm_head = nn.Linear(config.hidden, config.vocabulary, False)
        if config.tied:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, input_ids: Tensor, mask: Tensor, k_cache: Tensor, v_cache: Tensor) -> Tensor:
        return self.lm_head(self.model(input_ids, mask, k_cache, v_cache))

    def empty_caches(self) -> tuple[Tensor, Tensor]:
        shape, dtype = self.config.cache_shape(self.context), self.model.norm.weight.dtype
        return torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)


def build(
    config: Qwen3Config,
    context: int,
    names: Iterable[str],
    read: Callable[[str], np.ndarray],
    dtype: torch.dtype = torch.float32,
    factors: Factors | None = None,
) -> Qwen3:
    """A model of the tensors that `read` gives, one at a time, in `dtype` and evaluation mode.

    `factors` are those of a LoRA adapter, (A [in, rank], B [rank, out], scale) by module: its branches stay unfused.
    Raises BadInput where the model has no such tensor or module, or lacks one.
    """
    with torch.device("meta"):  # a model of random weights would stand in memory beside the real ones
        model = Qwen3(config, context)
    left = set(model.state_dict())
    for name in names:
        if name not in left:
            raise BadInput(f"a Qwen3 model of this config.json has no tensor {name}")
        left.discard(name)
        if config.tied and name == "lm_head.weight":
            continue
        tensor = torch.from_numpy(np.ascontiguousarray(read(name))).to(dtype)
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        if tensor.shape != getattr(module, leaf).shape:
            raise BadInput(f"{name} is {list(tensor.shape)}; config.json asks for {list(getattr(module, leaf).shape)}")
        setattr(module, leaf, nn.Parameter(tensor, requires_grad=False))
    if config.tied:
        model.lm_head.weight = model.model.embed_tokens.weight
        left.discard("lm_head.weight")
    if left:
        raise BadInput(f"the model folder lacks the tensor {sorted(left)[0]}")
    for module in model.modules():
        for name, constant in module.named_buffers(recurse=False):
            setattr(module, name, constant.to(dtype))
    for name, one in (factors or {}).items():
        if not isinstance(linear := model.get_submodule(name), nn.Linear):
            raise BadInput(f"the adapter changes {name}, which is no linear layer; such an adapter has no branch")
        model.set_submodule(name, LoraLinear(linear, *one))
    return model.eval()


def causal_mask(count: int, end: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """[1, 1, count, end] for the last `count` of `end` tokens: 0 where they see, MASKED where they do not."""
    visible = torch.arange(end)[None, :] <= torch.arange(end - count, end)[:, None]
    return torch.where(visible, 0.0, MASKED).to(dtype)[None, None]


def rope_tables(config: Qwen3Config, context: int) -> tuple[Tensor, Tensor]:
    """cos and sin of the angles [context, head dimension], whose halves are alike, in float32."""
    of = {"dtype": torch.float32, "device": "cpu"}
    frequencies = config.rope_theta ** -(torch.arange(0, config.head_dim, 2, **of) / config.head_dim)
    angles = torch.outer(torch.arange(context, **of), frequencies)
    angles = torch.cat((angles, angles), -1)
    return angles.cos(), angles.sin()


def _rotated(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), -1)
