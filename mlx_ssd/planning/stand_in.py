"""What is measured in place of a recipe's model: few layers of its widths, random weights, quantized as its own are.

Quantized experts are one, repeated: to draw and round all of them would take longer than the measurement, and more
memory than they have, and no time depends on what they hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.models.switch_layers import SwitchLinear
from mlx_lm.utils import _get_classes

from mlx_ssd.budget.tensors import Tensor, quantization_of

# What a config.json that is known in part does not say, and what no time depends on.
USUAL = {
    "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 131072, "attention_bias": False,
    "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
}  # fmt: skip
OF_EXPERTS = ("weight", "scales", "biases")


def build(work: Mapping[str, Any], layers: int) -> nn.Module:
    """The model with so many layers, in evaluation mode. Layer n is quantized as the model's own layer n is."""
    config = USUAL | work["config"] | {"num_hidden_layers": layers}
    kind, arguments = _get_classes(config)
    mx.random.seed(0)
    model = kind(arguments.from_dict(config))
    model.set_dtype(getattr(mx, work["dtype"]))
    _quantize(model, config)
    for _, array in tree_flatten(model.parameters()):
        mx.eval(array)  # one by one, so that what a matrix is rounded from goes before the next is drawn
    model.eval()
    return model


def _quantize(model: nn.Module, config: Mapping[str, Any]) -> None:
    """As mlx-lm's loader does with what it finds in the folder."""
    how = {path: found for path, module in model.named_modules() if (found := _quantization(path, module, config))}
    experts = {}
    for path, module in model.named_modules():
        if path in how and isinstance(module, SwitchLinear):
            count, *shape = module.weight.shape
            experts[path] = count
            module.weight = (shape[-1] ** -0.5 * mx.random.normal((1, *shape))).astype(module.weight.dtype)
    nn.quantize(model, class_predicate=lambda path, _: how.get(path, False))
    for path, module in model.named_modules():
        for name in OF_EXPERTS if path in experts else ():
            if module.get(name) is not None:
                module[name] = mx.repeat(module[name], experts[path], axis=0)


def _quantization(path: str, module: nn.Module, config: Mapping[str, Any]) -> dict[str, Any]:
    """group_size, bits and mode of a module; nothing of one that stays as it is."""
    if not hasattr(module, "to_quantized"):
        return {}
    return dict(quantization_of(Tensor(path, *module.weight.shape[-2:]), config) or {})
