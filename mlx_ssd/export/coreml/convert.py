"""From the PyTorch twin to Core ML packages: in float16, in fewer bits, or of functions that share their weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mlx_ssd.export.coreml.contract import BLOCK, IDS, LOGITS, MASK, STATES, weight_name
from mlx_ssd.export.coreml.tools import coremltools, no_bars
from mlx_ssd.torch_ref.qwen3 import Qwen3, causal_mask

TABLES = ("model.cos", "model.sin")  # of the rotary embedding
SPEC = Path("Data/com.apple.CoreML/model.mlmodel")  # within a package: all but the weights
WEIGHTS = Path("Data/com.apple.CoreML/weights/weight.bin")


class Stateful(nn.Module):
    """The model with its caches as buffers, which become Core ML states."""

    def __init__(self, model: Qwen3):
        super().__init__()
        self.twin = model
        for name, cache in zip(STATES, model.empty_caches(), strict=True):
            self.register_buffer(name, cache, persistent=False)

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        return self.twin(input_ids, mask, *(getattr(self, name) for name in STATES))


def convert(model: Qwen3, package: Path) -> None:
    """Write `model`, which is in float16, for iOS 18 and macOS 15; calls append 1 to `context` tokens at a time."""
    ct = coremltools()
    # Any lengths will do: shapes are traced, and stand for what the ranges below allow.
    example = (torch.zeros(1, 4, dtype=torch.int32), causal_mask(4, 7, model.lm_head.weight.dtype))
    with torch.no_grad():
        traced = torch.jit.trace(Stateful(model).eval(), example, check_trace=False)
    tokens, end = (ct.RangeDim(1, model.context, default=1) for _ in range(2))
    cache = ct.TensorType(shape=model.config.cache_shape(model.context), dtype=np.float16)
    with no_bars():
        converted = ct.convert(
            traced,
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS18,
            compute_precision=ct.precision.FLOAT16,
            skip_model_load=True,
            inputs=[
                ct.TensorType(IDS, (1, tokens), dtype=np.int32),
                ct.TensorType(MASK, (1, 1, tokens, end), dtype=np.float16),
            ],
            outputs=[ct.TensorType(LOGITS, dtype=np.float16)],
            states=[ct.StateType(wrapped_type=cache, name=name) for name in STATES],
        )
    converted.save(str(package))


def quantize(package: Path, to: Path, precision: str) -> None:
    """Write a float16 package's matrices in int8 (one scale a row) or int4 (one for 32 weights of a row) as `to`.

    Symmetric, rounded to the nearest. Embeddings too; norms and the rotary embedding's tables stay as they are.
    """
    ct = coremltools()
    from coremltools.optimize import coreml as optimize

    granularity = {"granularity": "per_channel"} if precision == "int8" else {"granularity": "per_block"}
    granularity |= {"block_size": BLOCK} if precision == "int4" else {}
    how = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", dtype=precision, weight_threshold=0, **granularity)
    config = optimize.OptimizationConfig(global_config=how, op_name_configs=dict.fromkeys(map(weight_name, TABLES)))
    with no_bars():
        model = ct.models.MLModel(str(package), skip_model_load=True)
        optimize.linear_quantize_weights(model, config).save(str(to))


def combine(packages: Mapping[str, Path], default: str, to: Path) -> None:
    """Write one package with a function for each of `packages`, in which equal weights stand once."""
    ct = coremltools()
    together = ct.utils.MultiFunctionDescriptor()
    for function, package in packages.items():
        together.add_function(str(package), src_function_name="main", target_function_name=function)
    together.default_function_name = default
    with no_bars():
        ct.utils.save_multifunction(together, str(to))


def describe(package: Path, sentence: str, licence: str, facts: Mapping[str, str]) -> None:
    """Put metadata into a saved package, which Xcode shows and an app can read."""
    spec = coremltools().utils.load_spec(str(package))
    metadata = spec.description.metadata
    metadata.shortDescription, metadata.license = sentence, licence
    metadata.userDefined.update(facts)
    (package / SPEC).write_bytes(spec.SerializeToString())


def weight_bytes(package: Path) -> int:
    return (package / WEIGHTS).stat().st_size
