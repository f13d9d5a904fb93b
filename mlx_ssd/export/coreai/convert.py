"""From a Qwen3 in PyTorch to an .aimodel: one function a model, weights that are alike stored once."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlx_ssd.export.coreai.bundle import INPUTS, LOGITS, STATES
from mlx_ssd.export.coreai.noise import without_noise
from mlx_ssd.export.coreai.rounding import BLOCK
from mlx_ssd.torch_ref.qwen3 import Qwen3, RMSNorm, causal_mask

TRACED_TOKENS, TRACED_END, TRACED_CAPACITY = 4, 7, 32  # all three vary in what is written


class Function(nn.Module):
    """A Qwen3 as Apple's package calls it: what is cached is said by how many positions there are."""

    def __init__(self, model: Qwen3):
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, position_ids: Tensor, key_cache: Tensor, value_cache: Tensor) -> Tensor:
        mask = causal_mask(input_ids.shape[-1], position_ids.shape[-1], key_cache.dtype)
        return self.model(input_ids, mask, key_cache, value_cache)


def example(model: Qwen3) -> tuple[Tensor, ...]:
    """Arguments of a Function."""
    shape, dtype = model.config.cache_shape(TRACED_CAPACITY), model.model.norm.weight.dtype
    ids = torch.zeros(1, TRACED_TOKENS, dtype=torch.int32)
    positions = torch.arange(TRACED_END, dtype=torch.int32)[None]
    return ids, positions, torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)


def in_int4(model: Qwen3) -> Function:
    """Every matrix in symmetric 4 bits, one scale for BLOCK weights of a row, the embedding too; norms stay."""
    with without_noise():
        from coreai_opt.base_model_compressor import ExportBackend
        from coreai_opt.quantization import Quantizer, QuantizerConfig

        block = {"type": "per_block", "block_size": BLOCK, "axis": 1}
        weight = {"dtype": "int4", "qscheme": "symmetric_with_clipping", "granularity": block}
        everywhere = {"op_state_spec": {"weight": weight}, "op_input_spec": None, "op_output_spec": None}
        norms = {f"{RMSNorm.__module__}.{RMSNorm.__qualname__}": None}
        settings = {"execution_mode": "eager", "global_config": everywhere, "module_type_configs": norms}
        quantizer = Quantizer(Function(model), QuantizerConfig.from_dict({"quantization_config": settings}))
        quantizer.prepare(example(model))
        return quantizer.finalize(backend=ExportBackend.CoreAI)


def write(functions: dict[str, Function], context: int, path: Path, description: str) -> None:
    """Write an .aimodel with these functions; `functions` is empty afterwards, so that the weights can be freed."""
    with without_noise():
        from coreai.runtime import AIModelAssetMetadata
        from coreai_torch import TorchConverter

        converter = TorchConverter(mode=TorchConverter.Mode.RELEASE)
        for name, function in functions.items():
            converter.add_exported_program(
                _exported(function, context),
                input_names=list(INPUTS),
                output_names=[LOGITS],
                state_names=list(STATES),
                entrypoint_name=name,
            )
        program = converter.to_coreai()
        functions.clear()
        del converter, function
        gc.collect()  # before the file is put together in memory, beside the program
        facts = AIModelAssetMetadata()
        facts.model_description = description
        program.save_asset(path, facts)


def _exported(function: Function, context: int) -> Any:
    import coreai_torch

    tokens, end, capacity = (torch.export.Dim(name, max=context) for name in ("tokens", "end", "capacity"))
    shapes = ({1: tokens}, {1: end}, {3: capacity}, {3: capacity})
    with torch.no_grad():
        program = torch.export.export(function, example(function.model), dynamic_shapes=shapes)
        return program.run_decompositions(coreai_torch.get_decomp_table())
