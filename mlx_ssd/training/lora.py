"""Low-rank adapters: attach them to a model, write them in mlx-lm's layout.

`settings` is anything with `rank`, `scale` (it multiplies B·A as it is: alpha / rank elsewhere), `dropout`,
`keys` ('all', or module names as mlx-lm has them, such as 'self_attn.q_proj'), `experts` (whether 'all' takes in the
experts of a mixture, each with an adapter of its own), `num_layers` (the last so many; -1 for all) and `seed`.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear
from mlx_lm.tuner.lora import LoRALinear, LoRASwitchLinear
from mlx_lm.tuner.utils import linear_to_lora_layers

from mlx_ssd.errors import BadInput
from mlx_ssd.storage import atomic_directory
from mlx_ssd.training.arrays import write_arrays
from mlx_ssd.training.batches import Batch
from mlx_ssd.training.forward import Head, completion_states
from mlx_ssd.training.targets import Base

WEIGHTS = "adapters.safetensors"  # both names are mlx-lm's
CONFIG = "adapter_config.json"


class MixedPrecisionLoRALinear(LoRALinear):
    """mlx-lm's layer, with the adapter's products in bfloat16 where that is what comes in. The adapter is float32.

    mlx-lm's own products are float32: of a bfloat16 input every layer then makes, and keeps for the backward pass, a
    copy twice its size, and the outputs are float32 until they are added. That is a third of a training's memory.
    Small gradients would be zero in float16, which keeps float32 products.
    """

    def __call__(self, x: mx.array) -> mx.array:
        dtype = mx.bfloat16 if x.dtype == mx.bfloat16 else mx.float32
        a, b = self.lora_a.astype(dtype), self.lora_b.astype(dtype)
        return self.linear(x) + (self.scale * ((self.dropout(x) @ a) @ b)).astype(x.dtype)


def attach(model: nn.Module, settings: Any) -> None:
    """Freeze `model` and put float32 adapters on it: A uniform, drawn from `settings.seed`; B zero.

    Any base of mlx-lm will do, quantized or not. Raises BadInput for a key that names no module (mlx-lm skips
    it in silence), for one that cannot wear an adapter, and for a model that wears an adapter already.
    """
    if any("lora_a" in module for _, module in model.named_modules()):
        raise BadInput("the model wears an adapter already: load the base alone, or fuse that adapter first")
    if settings.keys != "all":
        names = {name for part in (model, *model.layers) for name, _ in part.named_modules()}
        if unknown := sorted(set(settings.keys) - names):
            raise BadInput(
                f"the LoRA keys {', '.join(unknown)} name no module of this {type(model).__module__} model: "
                "use names within a layer such as self_attn.q_proj, or 'all'"
            )
    model.freeze()
    mx.random.seed(settings.seed)
    try:
        linear_to_lora_layers(model, settings.num_layers, _lora_parameters(model, settings))
    except ValueError as error:
        raise BadInput(f"the LoRA keys {settings.keys} do not fit this model: {error}") from error
    for module in model.modules():
        if type(module) is LoRALinear:
            module.__class__ = MixedPrecisionLoRALinear


def adapter_weights(model: nn.Module) -> dict[str, mx.array]:
    """The adapter's arrays by parameter name: after `attach_lora`, all that is trainable."""
    return dict(tree_flatten(model.trainable_parameters()))


@contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """Within it, `model` is its base, bit for bit, in evaluation mode; afterwards it is as it was.

    Each wrapped layer stands in its wrapper's place, so this costs no product with the adapter, and dropout
    draws no random numbers.
    """
    wrappers = [(name, module) for name, module in model.named_modules() if "lora_a" in module]
    bases = [(name, module["embedding" if "embedding" in module else "linear"]) for name, module in wrappers]
    training = model.training
    try:
        model.update_modules(tree_unflatten(bases))
        model.eval()
        yield
    finally:
        model.update_modules(tree_unflatten(wrappers))
        model.train(training)


def base_of(model: nn.Module, head: Head | None) -> Base:
    """The model that the student began from: this one, with its adapter off."""

    def base(batch: Batch) -> tuple[mx.array, Any]:
        with adapter_off(model):
            return completion_states(model, head, batch), head.of(model) if head else lambda states: states

    return base


def write(model: nn.Module, settings: Any, folder: Path) -> None:
    """Write the folder that `mlx_lm.load(base, adapter_path=folder)` reads, whole or not at all."""
    config = {
        "fine_tune_type": "lora",
        "num_layers": settings.num_layers,
        "lora_parameters": _lora_parameters(model, settings),
    }
    write_folder(folder, config, adapter_weights(model))


def write_folder(folder: Path, config: dict[str, Any], arrays: dict[str, mx.array]) -> None:
    with atomic_directory(folder) as partial:
        write_arrays(partial / WEIGHTS, arrays)
        (partial / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _lora_parameters(model: nn.Module, settings: Any) -> dict[str, Any]:
    parameters = {"rank": settings.rank, "scale": settings.scale, "dropout": settings.dropout}
    experts = (SwitchLinear, QuantizedSwitchLinear, LoRASwitchLinear)
    if settings.keys != "all":
        parameters["keys"] = list(settings.keys)
    elif not settings.experts and any(isinstance(module, experts) for module in model.modules()):
        linear = (nn.Linear, nn.QuantizedLinear, LoRALinear)
        found = {
            name.removesuffix(".linear")
            for layer in model.layers
            for name, module in layer.named_modules()
            if isinstance(module, linear)
        }
        parameters["keys"] = sorted(found)
    return parameters  # without keys, mlx-lm takes every linear layer, experts included
