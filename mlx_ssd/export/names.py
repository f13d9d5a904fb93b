"""What modules are called, and whose names are Transformers' too."""

from __future__ import annotations

import re
from typing import Any

_IN_A_LAYER = re.compile(r"(?:.*\.)?layers\.(\d+)\.(.+)")


def layer_of(module: str) -> tuple[int, str] | None:
    """(3, "self_attn.q_proj") of model.layers.3.self_attn.q_proj; None of what stands in no layer."""
    match = _IN_A_LAYER.fullmatch(module)
    return (int(match[1]), match[2]) if match else None


def is_mixture(config: dict[str, Any]) -> bool:
    """Whether a model has experts, which mlx-lm stacks and names otherwise than Transformers."""
    config = config | config.get("text_config", {})
    return any(config.get(key) for key in ("num_experts", "num_local_experts", "n_routed_experts"))
