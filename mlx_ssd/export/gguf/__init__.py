"""One GGUF file, for llama.cpp, Ollama and LM Studio: the whole student, its update added to the weights.

Written tensor by tensor with the `gguf` package's writer and quantizers. llama.cpp's own K-quants are not among these;
`llama-quantize` makes them of the F16 file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.export import Tolerance
from mlx_ssd.export.gguf import architecture
from mlx_ssd.storage import write_json

if TYPE_CHECKING:
    import numpy as np

    from mlx_ssd.export.source import Source
    from mlx_ssd.export.torch_reader import TorchReader

EXTRA = "gguf"
PACKAGES = ("gguf", "torch")
PRECISIONS = ("Q8_0", "F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
CHECKED_BY = "the gguf package, and Transformers on what it read; its tokenizer by llama.cpp's patterns"
_SAME = Tolerance(1e-3, 1e-6, 1.0, "the same numbers in the same library")
TOLERANCES = dict.fromkeys(PRECISIONS, _SAME)
FILE = "model.gguf"
FILES = (FILE,)

BLOCK = 32  # weights that share a scale; a row that is no multiple of it stays in F16


def refuse(config: dict[str, Any], adapter_config: dict[str, Any]) -> str | None:
    return architecture.refuse(config)


def tensor_type(name: str, shape: tuple[int, ...], precision: str) -> str:
    """The type in which a tensor of Hugging Face's name is written.

    Norms are F32, as llama.cpp wants them. The embedding and the head keep 8 bits in files of 4 and 5: all logits go
    through them, and llama-quantize gives them more bits too.
    """
    if len(shape) == 1:
        return "F32"
    if precision == "F16" or shape[-1] % BLOCK:
        return "F16"
    return "Q8_0" if "embed_tokens" in name or "lm_head" in name else precision


def check_memory(source: Source) -> None:
    from mlx_ssd.export.memory import refuse_whole

    refuse_whole(source, "adapter or mlx")


def write(source: Source, folder: Path, precision: str, report: Callable[[int, int], None]) -> None:
    """Raises BadInput for a tokenizer that no pre-tokenizer of llama.cpp is known to split like."""
    import gguf
    from gguf.quants import quantize

    from mlx_ssd import models
    from mlx_ssd.export.gguf import tokens
    from mlx_ssd.weights import AdaptedWeights

    vocabulary = tokens.of_folder(source.base.path, source.config["vocab_size"])
    tokenizer = models.load_tokenizer(source.base)
    weights = AdaptedWeights(source.base.path, source.adapter)
    names = architecture.stored_names(source.config, weights.names)
    factors = architecture.rope_factors(source.config)
    writer = gguf.GGUFWriter(folder / FILE, source.config["model_type"])
    try:
        writer.add_name(source.name)
        writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{precision}"])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        architecture.hyperparameters(writer, source.config)
        tokens.write(writer, vocabulary, tokenizer)
        for name, stored in names.items():
            shape = weights.shape(name)
            kind = gguf.GGMLQuantizationType[tensor_type(name, shape, precision)]
            size, itemsize = gguf.GGML_QUANT_SIZES[kind]
            # Of a type of blocks the shape is that of its values all the same, unless dtype says bytes.
            writer.add_tensor_info(stored, shape, "float32", math.prod(shape) // size * itemsize, kind)
        if factors is not None:
            writer.add_tensor_info(architecture.ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for done, name in enumerate(names):
            report(done, len(names))
            kind = gguf.GGMLQuantizationType[tensor_type(name, weights.shape(name), precision)]
            writer.write_tensor_data(quantize(architecture.paired(source.config, name, weights.read(name)), kind))
        if factors is not None:
            writer.write_tensor_data(factors)
    finally:
        writer.close()


def load(source: Source, folder: Path, precision: str) -> TorchReader:
    """From the file alone: configuration, tensors and tokenizer.

    Raises WorkFailed where its tokenizer splits a text otherwise than the run's.
    """
    import torch

    from mlx_ssd import models
    from mlx_ssd.export.gguf import tokens
    from mlx_ssd.export.texts import drawn
    from mlx_ssd.export.torch_reader import TorchReader
    from mlx_ssd.torch_ref import model as torch_model

    file = Contents(folder / FILE)
    tokenizer = models.load_tokenizer(source.base)
    texts = [tokenizer.decode([*text.prompt_ids, *text.completion_ids]) for text in drawn(source)[0]]
    if unlike := tokens.first_unlike(tokens.rebuilt(file.fields), tokenizer, [*tokens.PROBES, *texts]):
        raise WorkFailed(f"the tokenizer in {FILE} splits {unlike!r} otherwise than the model's own")
    with TemporaryDirectory() as beside:
        write_json(Path(beside) / "config.json", file.config)
        model = torch_model.build(Path(beside), file.names, file.read)
    if file.rope_factors is not None:
        model.model.rotary_emb.inv_freq /= torch.from_numpy(file.rope_factors)
    return TorchReader(model)


class Contents:
    """What a file holds: `fields`, the `config` that they amount to, its tensors under Hugging Face's `names`, and
    `rope_factors` where there are any. Raises BadInput for a damaged one."""

    def __init__(self, path: Path):
        import gguf
        import numpy as np

        try:
            reader = gguf.GGUFReader(path)
            self.fields: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
        except Exception as error:  # whatever the reader meets in a damaged file
            raise BadInput(f"{path} cannot be read ({error}); export again with --force") from None
        stored = {tensor.name: tensor for tensor in reader.tensors}
        factors = stored.pop(architecture.ROPE_FACTORS, None)
        self.rope_factors = None if factors is None else np.array(factors.data)
        self._tensors = {architecture.original_name(name): tensor for name, tensor in stored.items()}
        self.names = list(self._tensors)
        self.config = architecture.file_config(self.fields, tied="lm_head.weight" not in self._tensors)

    def read(self, name: str) -> np.ndarray:
        """A tensor in float32, in Hugging Face's layout."""
        import numpy as np
        from gguf.quants import dequantize

        tensor = self._tensors[name]
        values = np.require(dequantize(tensor.data, tensor.tensor_type), requirements="W")
        return architecture.unpaired(self.config, name, values)


def rounded(source: Source, precision: str) -> TorchReader:
    """The student's weights rounded as the precision's definition says, without the gguf package."""
    from mlx_ssd.export.gguf import blocks
    from mlx_ssd.export.torch_reader import TorchReader
    from mlx_ssd.torch_ref import model as torch_model
    from mlx_ssd.weights import AdaptedWeights

    weights = AdaptedWeights(source.base.path, source.adapter)

    def read(name: str) -> np.ndarray:
        return blocks.rounded(weights.read(name), tensor_type(name, weights.shape(name), precision))

    return TorchReader(torch_model.build(source.base.path, weights.names, read))


def survival(source: Source, folder: Path, precision: str) -> list[dict[str, Any]]:
    from mlx_ssd.export.survival import survival
    from mlx_ssd.weights import AdaptedWeights

    return survival(AdaptedWeights(source.base.path, source.adapter), Contents(folder / FILE).read)
