"""Low-rank adapters on a twin: y += scale * x A B, under mlx-lm's names and from its files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mlx_ssd.errors import BadInput


class Adapter:
    """Of `tensors` by mlx-lm's names: `….q_proj.lora_a` [in, rank] and `lora_b` [rank, out]; of stacked experts
    `….switch_mlp.gate_proj.lora_a` [experts, rank, in] and `lora_b` [experts, out, rank].

    `tensors` are the leaves that a gradient is taken by. Raises BadInput for a module that the model does not have, or
    that cannot wear an adapter here.
    """

    def __init__(self, model: nn.Module, tensors: Mapping[str, Tensor], scale: float):
        dtype = next(model.parameters()).dtype
        self.tensors = {name: tensor.to(dtype).clone().requires_grad_() for name, tensor in tensors.items()}
        self._scale, self._on = scale, True
        experts: dict[str, set[str]] = {}
        for name in sorted({name.rpartition(".")[0] for name in tensors}):
            mlp, stacked, matrix = name.partition(".switch_mlp.")
            if stacked:
                experts.setdefault(f"{mlp}.experts", set()).add(matrix)
                continue
            try:
                module = model.get_submodule(name)
            except AttributeError:
                raise BadInput(f"the adapter adapts {name}, which Transformers' model does not have") from None
            if isinstance(module, nn.Linear):
                module.register_forward_hook(lambda _, inputs, output, name=name: self._added(name, inputs[0], output))
            elif isinstance(module, nn.Embedding):
                raise BadInput(f"the adapter adapts the embedding {name}, which PyTorch's twin cannot")
            else:  # a router: it multiplies with its weight itself
                self._parametrize(module, "weight", lambda name=name: self._update(name))
        for name, matrices in experts.items():
            module = model.get_submodule(name)
            if "down_proj" in matrices:
                self._parametrize(module, "down_proj", lambda name=name: self._of_experts(name, "down_proj"))
            if matrices & {"gate_proj", "up_proj"}:
                self._parametrize(module, "gate_up_proj", lambda name=name: self._of_gate_and_up(name))

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        """Within it, the model is its base."""
        self._on = False
        try:
            yield
        finally:
            self._on = True

    def _added(self, name: str, x: Tensor, output: Tensor) -> Tensor:
        if not self._on:
            return output
        return output + self._scale * (x @ self.tensors[f"{name}.lora_a"]) @ self.tensors[f"{name}.lora_b"]

    def _update(self, name: str) -> Tensor:
        return self._scale * (self.tensors[f"{name}.lora_a"] @ self.tensors[f"{name}.lora_b"]).T

    def _of_experts(self, experts: str, matrix: str) -> Tensor:
        name = f"{experts.removesuffix('.experts')}.switch_mlp.{matrix}"
        return self._scale * self.tensors[f"{name}.lora_b"] @ self.tensors[f"{name}.lora_a"]

    def _of_gate_and_up(self, experts: str) -> Tensor:
        """Transformers has both in one matrix, the gate's rows first."""
        mlp = experts.removesuffix(".experts")
        worn = [matrix for matrix in ("gate_proj", "up_proj") if f"{mlp}.switch_mlp.{matrix}.lora_a" in self.tensors]
        updates = {matrix: self._of_experts(experts, matrix) for matrix in worn}
        none = torch.zeros_like(updates[worn[0]])
        return torch.cat([updates.get(matrix, none) for matrix in ("gate_proj", "up_proj")], dim=1)

    def _parametrize(self, module: nn.Module, parameter: str, update: Any) -> None:
        parametrize.register_parametrization(module, parameter, _Updated(self, update), unsafe=True)


class _Updated(nn.Module):
    """A weight, and its update added where the adapter is on."""

    def __init__(self, adapter: Adapter, update: Any):
        super().__init__()
        self._adapter, self._update = adapter, update

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self._update() if self._adapter._on else weight
