"""The tensors of the model's files as MLX reads and dequantizes them, beside PyTorch's reading."""

from __future__ import annotations

from pathlib import Path

from mlx_ssd.parity.row import Row, differences
from mlx_ssd.parity.subject import Subject

ROUNDED = 1e-6


def left_out(subject: Subject) -> None:
    return None


def rows(subject: Subject, work: Path) -> list[Row]:
    from mlx_ssd.torch_ref.weights import TorchWeights
    from mlx_ssd.weights import WeightFiles

    folder = subject.source.base.path
    in_mlx, in_torch = WeightFiles(folder), TorchWeights(folder)
    names = sorted({*in_mlx.names, *in_torch.names})
    found = differences((in_mlx.read(name), in_torch.read(name)) for name in names)
    quantized = [name for name in names if in_mlx.quantization(name)]
    if not quantized:
        tolerance, why = 0.0, "the same numbers, wider"
    elif all(map(in_torch.exact, names)):
        tolerance, why = 0.0, "scales of 16 bits: scale x integer is exact in float32, and the sum is rounded once"
    else:
        tolerance, why = ROUNDED, "scales in float32: scale x integer is rounded before the sum, or is not"
    what = f"{len(names)} tensors" + (f", {len(quantized)} of them dequantized" if quantized else "")
    return [Row("weights", found, "max_abs", tolerance, why, what)]
