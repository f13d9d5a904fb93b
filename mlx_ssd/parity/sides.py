"""The two sides of a comparison: a run's model in MLX and in PyTorch, both in float32, whole or layer by layer."""

from __future__ import annotations

import gc
from typing import Any

from mlx_ssd import heartbeat, models
from mlx_ssd.errors import BadInput
from mlx_ssd.parity.subject import Subject

ADAPTER = "adapters.safetensors"


def in_mlx(subject: Subject, adapted: bool) -> tuple[Any, Any]:
    """(model, tokenizer): the base, or the student with its adapter on."""
    adapter = subject.source.adapter if adapted else None
    model, tokenizer = models.load(subject.source.base, "float32", adapter, lazy=subject.by_layer)
    if subject.by_layer:
        if not hasattr(getattr(model, "model", None), "layers"):
            raise BadInput(f"{subject.source.base.path} is too large to be compared whole, and has no list of layers")
        model.model.layers = [_Once(layer) for layer in model.model.layers]
    return model, tokenizer


def free_mlx() -> None:
    """Give back what a model took that nothing refers to any more."""
    import mlx.core as mx

    gc.collect()
    mx.clear_cache()


class _Once:
    """A layer whose weights are read when it is run, and dropped after that."""

    def __init__(self, layer: Any):
        self._layer = layer

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        import mlx.core as mx

        output = self._layer(*inputs, **named)
        mx.eval(output)
        heartbeat.alive()
        self._layer = None
        mx.clear_cache()
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


def in_torch(subject: Subject, adapted: bool, dtype: str = "float32") -> tuple[Any, Any]:
    """(model, adapter): the same twice; the adapter is None where there is none to take off."""
    from safetensors.torch import load_file

    from mlx_ssd.torch_ref.adapter import Adapter
    from mlx_ssd.torch_ref.model import build, build_by_layer
    from mlx_ssd.torch_ref.weights import TorchWeights

    source = subject.source
    weights, trained = TorchWeights(source.base.path), {}
    if adapted:
        trained = load_file(source.adapter / ADAPTER)

    def read(name: str) -> Any:  # full fine-tuning has other tensors in the base's place
        return trained[name] if name in trained else weights.read(name)

    make = build_by_layer if subject.by_layer else build
    model = make(source.base.path, weights.names, read, dtype)
    if not adapted or not subject.lora:
        return model, None
    return model, Adapter(model, trained, source.adapter_config["lora_parameters"]["scale"])
