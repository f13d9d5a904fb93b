"""How a Core ML package is called: names, shapes and how long a context it takes. Imports nothing heavy.

The names are those that the Swift package swift-transformers looks for (its LanguageModel with a stateful cache).
"""

from __future__ import annotations

from mlx_ssd.layout import MAIN
from mlx_ssd.torch_ref.qwen3_config import Qwen3Config

PACKAGE = "student.mlpackage"
TOKENIZER = "tokenizer"
ADAPTERS = "adapters"  # the precision in which adapters are functions

IDS = "inputIds"  # int32 [1, S]
MASK = "fullAttentionMask"  # float16 [1, 1, S, end]: 0 where a token sees, -1e4 where not; end counts all S so far
LOGITS = "logits"  # float16 [1, S, vocabulary]
STATES = ("keyCache", "valueCache")  # float16 [layers, 1, KV heads, context, head dimension]

# A state's size is fixed: its bytes are taken however short the text is (Qwen3-4B: 0.6 GB at 4,096 tokens).
LONGEST_CONTEXT = 4096
BLOCK = 32  # weights of a row that share a scale in int4


def context_of(config: Qwen3Config) -> int:
    return min(config.max_positions, LONGEST_CONTEXT)


def cache_bytes(config: Qwen3Config) -> int:
    """Of both states, in float16."""
    layers, _, heads, context, size = config.cache_shape(context_of(config))
    return 2 * 2 * layers * heads * context * size


def function_of(arm: str) -> str:
    """An arm's function in a package of adapters: an identifier, which an arm's name need not be."""
    return arm if arm == MAIN else f"arm_{arm.replace('-', '_')}"


def weight_name(name: str) -> str:
    """What a tensor of Transformers' name is called within a package: by its path in convert.Stateful."""
    return f"twin_{name.replace('.', '_')}"
