"""The tensors of a model folder, read by safetensors and dequantized in PyTorch: `weights.WeightFiles` without MLX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mlx_ssd.errors import BadInput

ROWS = 4096  # dequantized at a time: as 64-bit integers they take eight times the room of the result


class TorchWeights:
    """`names` lists what `read` gives; scales and biases are part of a quantized tensor and not listed."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._file_of: dict[str, Any] = {}
        for path in sorted(folder.glob("model*.safetensors")):
            try:
                file = safe_open(path, framework="pt")
            except SafetensorError as error:
                raise BadInput(f"{path} cannot be read ({error}); restore it, or fetch the model again") from None
            self._file_of |= dict.fromkeys(file.keys(), file)
        quantized = {name.removesuffix(".scales") for name in self._file_of if name.endswith(".scales")}
        self.names = [
            name
            for name in self._file_of
            if name.rpartition(".")[0] not in quantized or name.rpartition(".")[2] not in ("scales", "biases")
        ]

    def read(self, name: str) -> Tensor:
        """A tensor in float32."""
        module = name.removesuffix(".weight")
        stored = self._stored(name)
        if f"{module}.scales" not in self._file_of:
            return stored.float()
        bits, group = self._quantization(module)
        scales, biases = self._stored(f"{module}.scales"), self._stored(f"{module}.biases")
        return dequantize(stored, scales, biases, bits, group)

    def dtype(self, name: str) -> str:
        """As it is stored: bfloat16, uint32 of a quantized tensor."""
        return str(self._stored(name).dtype).removeprefix("torch.")

    def exact(self, name: str) -> bool:
        """Whether a tensor in float32 is the same however it is computed: of scales in float32 the products are
        rounded before the sum, or not, as the processor has it."""
        module = name.removesuffix(".weight")
        return f"{module}.scales" not in self._file_of or self._stored(f"{module}.scales").dtype != torch.float32

    def _stored(self, name: str) -> Tensor:
        return self._file_of[name].get_tensor(name)

    def _quantization(self, module: str) -> tuple[int, int]:
        usual = self.config.get("quantization") or self.config.get("quantization_config")
        if not usual:
            raise BadInput(f"{self.folder}/config.json says nothing of quantization, but {module} is quantized")
        own = usual.get(module)
        how = {**usual, **(own if isinstance(own, dict) else {})}
        if how.get("mode", "affine") != "affine":
            raise BadInput(f"{module} is quantized as {how['mode']}; of MLX's kinds PyTorch's twin knows affine alone")
        return how["bits"], how["group_size"]


def dequantize(packed: Tensor, scales: Tensor, biases: Tensor, bits: int, group: int) -> Tensor:
    """float32 [..., in]: scale * integer + bias, rounded once.

    packed uint32 [..., in * bits / 32], a little-endian stream of integers; scales and biases [..., in / group].
    """
    width = packed.shape[-1] * 32 // bits
    shape = (*packed.shape[:-1], width)
    packed = packed.view(torch.int32).reshape(-1, packed.shape[-1])
    scales, biases = scales.reshape(len(packed), -1), biases.reshape(len(packed), -1)
    found = torch.empty(len(packed), width)
    for start in range(0, len(packed), ROWS):
        part = slice(start, start + ROWS)
        integers = _unpack(packed[part].long() & 0xFFFFFFFF, bits).view(-1, width // group, group)
        of_group = (integers * scales[part, :, None].double() + biases[part, :, None].double()).flatten(1)
        found[part] = of_group.float()
    return found.view(shape)


def _unpack(words: Tensor, bits: int) -> Tensor:
    """int64 [rows, integers] of 32-bit words [rows, n]: an integer may begin in one word and end in the next."""
    words = words.view(len(words), -1, bits)  # `bits` words hold 32 integers
    found = []
    for number in range(32):
        word, offset = divmod(number * bits, 32)
        integer = words[..., word] >> offset
        if offset + bits > 32:
            integer = integer | (words[..., word + 1] << (32 - offset))
        found.append(integer & ((1 << bits) - 1))
    return torch.stack(found, dim=-1).flatten(1)
