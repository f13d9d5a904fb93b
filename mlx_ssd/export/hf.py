"""One bfloat16 model in Hugging Face layout: the base with its update added, under Transformers' names."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_ssd.errors import WorkFailed
from mlx_ssd.export import Reader, Tolerance
from mlx_ssd.export.model_folder import FILES as FILES
from mlx_ssd.export.model_folder import Shards, check_companions, copy_companions, of_dtype
from mlx_ssd.export.names import is_mixture

if TYPE_CHECKING:
    from mlx_ssd.export.source import Source

EXTRA = "parity"
PACKAGES = ("torch",)
PRECISIONS = ("bfloat16",)
CHECKED_BY = "Transformers, its bfloat16 weights computed with in float32"
TOLERANCES = {
    "bfloat16": Tolerance(1e-3, 1e-6, 1.0, "the same bfloat16 weights; what their rounding costs is the compression")
}


def refuse(config: dict[str, Any], adapter_config: dict[str, Any]) -> str | None:
    if is_mixture(config):
        return "the model has experts, which mlx-lm stacks and Transformers does not; --target mlx takes it"
    return None


def check_memory(source: Source) -> None:
    from mlx_ssd.export.memory import refuse_whole

    refuse_whole(source, "adapter or mlx")


def write(source: Source, folder: Path, precision: str, report: Callable[[int, int], None]) -> None:
    import mlx.core as mx

    from mlx_ssd.weights import AdaptedWeights

    weights = AdaptedWeights(source.base.path, source.adapter)
    shards = Shards(folder, "pt")
    for done, name in enumerate(weights.names):
        report(done, len(weights.names))
        shards.add(name, mx.array(weights.read(name)).astype(mx.bfloat16))
    shards.close()
    (folder / "config.json").write_text(json.dumps(config_of(source.config), indent=2) + "\n", encoding="utf-8")
    copy_companions(source.base.path, folder)


def config_of(config: dict[str, Any]) -> dict[str, Any]:
    """The base's config.json, of bfloat16 weights; Transformers would take mlx-lm's `quantization` for its own."""
    kept = {key: value for key, value in config.items() if key not in ("quantization", "quantization_config")}
    return of_dtype(kept, "bfloat16")


def load(source: Source, folder: Path, precision: str) -> Reader:
    from mlx_ssd.export.torch_reader import TorchReader

    check_companions(source.base.path, folder)
    return TorchReader(_from_pretrained(folder))


def _from_pretrained(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            output_loading_info=True,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except Exception as error:  # whatever the loader meets in a damaged folder
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WorkFailed(f"Transformers cannot load {folder}: {reason}") from error
    if strange := [*found["missing_keys"], *found["unexpected_keys"], *found["mismatched_keys"]]:
        raise WorkFailed(f"{folder} is not the whole model that Transformers expects: {sorted(strange)[0]}")
    return model.eval()


def rounded(source: Source, precision: str) -> Reader:
    """As mlx-lm fuses it, each weight then rounded."""
    import mlx.core as mx
    from mlx.utils import tree_map

    from mlx_ssd.export import fused
    from mlx_ssd.export.reference import MlxReader

    model = fused.whole_student(source)
    model.update(tree_map(lambda array: array.astype(mx.bfloat16).astype(mx.float32), model.parameters()))
    return MlxReader(model)


def survival(source: Source, folder: Path, precision: str) -> Sequence[dict[str, Any]]:
    from mlx_ssd.export.survival import survival
    from mlx_ssd.weights import AdaptedWeights, WeightFiles

    return survival(AdaptedWeights(source.base.path, source.adapter), WeightFiles(folder).read)
