"""Transformers' own model on the tensors of any folder, quantized ones dequantized: the reference for logits."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlx_ssd.errors import BadInput

Read = Callable[[str], Any]  # a tensor's name -> the tensor, of PyTorch or numpy

# What Transformers computes itself, or ties; mlx-lm leaves both out too.
COMPUTED = re.compile(r".*rotary_emb\.inv_freq")
# Experts: mlx-lm stacks them, files on the hub hold each by itself, and Transformers puts two matrices in one.
EXPERT = re.compile(r"(?P<mlp>.*)\.(switch_mlp|experts\.(?P<number>\d+))\.(?P<matrix>gate|up|down)_proj\.weight")


def build(folder: Path, names: Iterable[str], read: Read, dtype: str = "float32") -> Any:
    """A causal language model of `folder`'s config.json with the tensors that `read` gives, in evaluation mode.

    Tensors are read one after the other, and nothing of the model is held twice. Raises BadInput where Transformers
    knows no such model, or other tensors belong to it.
    """
    tensors = _Tensors(folder, names, read, dtype)
    tensors.fill(tensors.all)
    return tensors.model


def build_by_layer(folder: Path, names: Iterable[str], read: Read, dtype: str = "float32") -> Any:
    """The same for a model that would not fit: a layer's tensors are read when it is run, and dropped after it."""
    tensors = _Tensors(folder, names, read, dtype)
    layers = getattr(getattr(tensors.model, "model", None), "layers", None)
    if not layers:
        raise BadInput(f"{folder}: Transformers' {tensors.model.config.model_type} model has no list of layers")
    rest = set(tensors.all)
    for number, layer in enumerate(layers):
        inside = [name for name in tensors.all if name.startswith(f"model.layers.{number}.")]
        rest -= set(inside)
        layer.register_forward_pre_hook(lambda *_, inside=inside: tensors.fill(inside))
        layer.register_forward_hook(lambda *_, inside=inside: tensors.empty(inside))
    tensors.fill(rest)
    return tensors.model


@torch.no_grad()
def logits(model: Any, prompt_ids: Iterable[int], completion_ids: Iterable[int]) -> Any:
    """numpy float32 [completion tokens, vocabulary]: what the model says before each token of the completion."""
    return completion_logits(model, prompt_ids, completion_ids).float().numpy()


def completion_logits(model: Any, prompt_ids: Iterable[int], completion_ids: Iterable[int]) -> Tensor:
    """The same as a tensor [completion tokens, vocabulary] of the model's own type, with its gradient."""
    prompt, completion = list(prompt_ids), list(completion_ids)
    return model(torch.tensor([[*prompt, *completion]]), use_cache=False).logits[0, len(prompt) - 1 : -1]


class _Tensors:
    """A model without tensors, and where each tensor of the files belongs in it."""

    def __init__(self, folder: Path, names: Iterable[str], read: Read, dtype: str):
        self.folder, self._read, self._dtype = folder, read, getattr(torch, dtype)
        self.model = _skeleton(folder, self._dtype)
        self._shapes = {name: parameter.shape for name, parameter in self.model.named_parameters()}
        self._parameters = _without_storage(self.model, self._dtype)
        tied = set(self.model.state_dict()) - set(self._shapes)
        self._sources: dict[str, list[str]] = {name: [] for name in self._shapes}
        for name in names:
            if name in tied or COMPUTED.fullmatch(name):
                continue
            place = self._place(name)[0]
            if place not in self._sources:
                raise BadInput(f"{folder}: Transformers' {self.model.config.model_type} model has no tensor {name}")
            self._sources[place].append(name)
        if lacking := [name for name, sources in self._sources.items() if not sources]:
            raise BadInput(f"{folder} lacks the tensor {lacking[0]}")

    @property
    def all(self) -> list[str]:
        return list(self._shapes)

    @torch.no_grad()
    def fill(self, names: Iterable[str]) -> None:
        for name in names:
            whole: Tensor | None = None
            for source in self._sources[name]:
                _, part = self._place(source)
                tensor = torch.as_tensor(self._read(source))
                if part is None:
                    whole = tensor.to(self._dtype)
                    continue
                whole = torch.empty(self._shapes[name], dtype=self._dtype) if whole is None else whole
                if whole[part].shape != tensor.shape:
                    raise self._other_shape(source, tensor.shape, whole[part].shape)
                whole[part] = tensor
            if whole.shape != self._shapes[name]:
                raise self._other_shape(name, whole.shape, self._shapes[name])
            self._parameters[name].data = whole

    def empty(self, names: Iterable[str]) -> None:
        for name in names:
            self._parameters[name].data = torch.empty(0, dtype=self._dtype)

    def _place(self, name: str) -> tuple[str, Any]:
        """(parameter, which part of it or None for the whole) of a tensor in the files."""
        found = EXPERT.fullmatch(name)
        if name in self._shapes or not found:
            return name, None
        number = int(found["number"]) if found["number"] else slice(None)
        if found["matrix"] == "down":
            return f"{found['mlp']}.experts.down_proj", (number,)
        parameter = f"{found['mlp']}.experts.gate_up_proj"
        half = self._shapes[parameter][1] // 2 if parameter in self._shapes else 0
        return parameter, (number, slice(half) if found["matrix"] == "gate" else slice(half, None))

    def _other_shape(self, name: str, found: Any, expected: Any) -> BadInput:
        return BadInput(f"{self.folder}: {name} has the shape {tuple(found)}, its config.json says {tuple(expected)}")


def _skeleton(folder: Path, dtype: torch.dtype) -> Any:
    """The model with parameters that have a shape alone; what it computes itself (rotary tables) is there."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if getattr(config, "quantization_config", None) is not None:  # mlx-lm's: our tensors are whole
            del config.quantization_config
        with _parameters_on_meta():
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    except ValueError as error:
        raise BadInput(f"{folder}: Transformers has no such model ({str(error).splitlines()[0]})") from None
    return model.requires_grad_(False).eval()


@contextlib.contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Within it, modules get parameters without memory. Their buffers are real, which `torch.device("meta")` would
    not make them."""
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and parameter.device.type != "meta":
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = on_meta
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def _without_storage(model: nn.Module, dtype: torch.dtype) -> dict[str, nn.Parameter]:
    """Put empty parameters in place of those on meta, which cannot be given data; tied ones stay one."""
    of: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            fresh = of.setdefault(id(parameter), nn.Parameter(torch.empty(0, dtype=dtype), requires_grad=False))
            setattr(module, name, fresh)
    return dict(model.named_parameters())
