"""The tensors of a model folder one at a time, in float32: of quantized ones what their integers stand for, exactly.

No model is built, so a folder of any size is read within the memory of its largest tensor. Names are those in the
files, which are mlx-lm's and Transformers' alike for dense models. Of experts, which mlx-lm stacks, an adapter has
mlx-lm's names; where the files hold them otherwise, `AdaptedWeights` reads them as mlx-lm's model puts them together.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_ssd.errors import BadInput
from mlx_ssd.storage import read_json

INTEGERS = ("scales", "biases")  # beside a quantized tensor's `weight`


class WeightFiles:
    """`names` lists what `read` gives; a quantized tensor's scales and biases are part of it and not listed."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.config: dict[str, Any] = read_json(folder / "config.json")
        self._arrays: dict[str, mx.array] = {}  # for shape and type; none is ever evaluated, since it would be kept
        self._files: dict[str, Path] = {}
        for file in sorted(folder.glob("model*.safetensors")):
            try:
                found = mx.load(str(file))  # lazy: a tensor is read when it is evaluated
            except (RuntimeError, ValueError) as error:
                raise BadInput(f"{file} cannot be read ({error}); restore it, or fetch the model again") from None
            self._arrays |= found
            self._files |= dict.fromkeys(found, file)
        if not self._arrays:
            raise BadInput(f"{folder} has no model*.safetensors; it must be a folder in Hugging Face layout")
        self.names = [name for name in self._arrays if not self._belongs_to_another(name)]

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def _belongs_to_another(self, name: str) -> bool:
        module, _, last = name.rpartition(".")
        return last in INTEGERS and f"{module}.weight" in self._arrays and f"{module}.scales" in self._arrays

    def shape(self, name: str) -> tuple[int, ...]:
        """Of what `read` gives."""
        how, stored = self.quantization(name), tuple(self._arrays[name].shape)
        return (*stored[:-1], stored[-1] * 32 // how["bits"]) if how else stored

    def dtype(self, name: str) -> str:
        """As it is stored: bfloat16, uint32 of a quantized tensor."""
        return str(self._arrays[name].dtype).rpartition(".")[2]

    def quantization(self, name: str) -> dict[str, Any] | None:
        """bits, group_size and mode of a quantized tensor. Raises BadInput where config.json does not fit it."""
        module = name.removesuffix(".weight")
        if not name.endswith(".weight") or f"{module}.scales" not in self._arrays:
            return None
        usual = self.config.get("quantization") or self.config.get("quantization_config")
        if not usual or "bits" not in usual:
            raise BadInput(f"{self.folder}/config.json says nothing of quantization, but {name} is quantized")
        own = usual.get(module)
        # What is said of one module is all of it, as mlx-lm takes it: it has nothing from the rest, the mode neither.
        how = own if isinstance(own, dict) else usual
        how = {"bits": how["bits"], "group_size": how["group_size"], "mode": how.get("mode", "affine")}
        words, groups = self._arrays[name].shape[-1], self._arrays[f"{module}.scales"].shape[-1]
        if words * 32 != how["bits"] * how["group_size"] * groups:
            raise BadInput(
                f"{self.folder}/config.json says that {module} has {how['bits']} bits in groups of "
                f"{how['group_size']}, which its tensors have not; fetch or make the model again"
            )
        return how

    def read(self, name: str) -> np.ndarray:
        """A tensor in float32."""
        array = self._stored(name)
        if how := self.quantization(name):
            module = name.removesuffix(".weight")
            scales = self._stored(f"{module}.scales")
            biases = self._stored(f"{module}.biases") if f"{module}.biases" in self else None
            if how["mode"] == "affine":  # in 16 bits the products would be rounded, which the kernels do not do
                scales = scales.astype(mx.float32)
                biases = biases.astype(mx.float32)
            array = mx.dequantize(array, scales, biases, **how)
        return np.array(array.astype(mx.float32))

    def _stored(self, name: str) -> mx.array:
        """An array of its own, lazy, which goes when its reader lets it go."""
        return mx.load(str(self._files[name]))[name]


class AdaptedWeights(WeightFiles):
    """The same of a base with its adapter's update added; of full fine-tuning, with what was trained in its place.

    Raises BadInput where the adapter changes what the base does not have.
    """

    def __init__(self, folder: Path, adapter: Path):
        super().__init__(folder)
        self._sanitize: Callable[[dict[str, mx.array]], dict[str, mx.array]] | None = None
        self.adapter_config: dict[str, Any] = read_json(adapter / "adapter_config.json")
        self.method: str = self.adapter_config["fine_tune_type"]
        self._adapter_file = adapter / "adapters.safetensors"
        try:
            trained = set(mx.load(str(self._adapter_file)))
        except (RuntimeError, ValueError) as error:
            raise BadInput(f"{self._adapter_file} cannot be read ({error}); train again") from None
        if self.method not in ("lora", "full"):
            raise BadInput(f"{adapter} holds a {self.method} adapter; lora and full can be exported")
        self.adapted = sorted({name.rpartition(".")[0] for name in trained}) if self.method == "lora" else []
        # Tensors that training changed.
        self.changed = [f"{module}.weight" for module in self.adapted] or sorted(trained)
        if lacking := [name for name in self.changed if name not in self]:
            self._put_together(lacking)
        if strange := [name for name in self.changed if name not in self]:
            raise BadInput(f"{adapter} changes {strange[0]}, which {folder} does not have; is it of another base?")

    def _put_together(self, names: list[str]) -> None:
        """Take in stacks of experts that mlx-lm's model makes of other tensors. Raises BadInput for what else it makes:
        a tensor that is stored under another name cannot be told from one that is stored with other numbers."""
        from mlx_lm.utils import load_model

        try:
            model, config = load_model(self.folder, lazy=True)
            made = model.sanitize(dict(self._arrays))
        except Exception:  # whatever the loader meets: then the base does not have them
            return
        for name in names:
            if name in made and made[name].ndim != 3:
                raise BadInput(
                    f"training changed {name}, which mlx-lm makes of other tensors of {self.folder}: no whole model "
                    "can be written of it; take --target adapter, or train on the base as `mlx_lm.convert` writes it"
                )
            module = name.removesuffix(".weight")
            parts = (f"{module}.{part}" for part in ("weight", *INTEGERS))
            self._arrays |= {part: made[part] for part in parts if part in made}
        self._sanitize = model.sanitize
        if "quantization" in config:  # mlx-lm knows the bits of formats that the hub names in words
            self.config = self.config | {"quantization": config["quantization"]}

    def _stored(self, name: str) -> mx.array:
        if name in self._files:
            return super()._stored(name)
        fresh: dict[str, mx.array] = {}
        for file in sorted(set(self._files.values())):
            fresh |= mx.load(str(file))
        return self._sanitize(fresh)[name]

    def factors(self, module: str) -> tuple[np.ndarray, np.ndarray, float]:
        """(A [in, rank], B [rank, out], scale) of an adapted linear module: y += scale * x A B. Of an embedding
        A is [vocabulary, rank] and B [rank, hidden]; of experts A [experts * rank, in] and B [experts, out, rank]."""
        a, b = (self._trained(f"{module}.lora_{letter}") for letter in "ab")
        return a, b, float(self.adapter_config["lora_parameters"]["scale"])

    def _trained(self, name: str) -> np.ndarray:
        return np.array(mx.load(str(self._adapter_file))[name].astype(mx.float32))

    def delta(self, module: str) -> np.ndarray:
        """The update of a module's weight, in its shape, in float32. Raises BadInput where it does not fit."""
        if self.method == "full":
            return self.read(f"{module}.weight") - self.read_base(f"{module}.weight")
        a, b, scale = self.factors(module)
        a, b, shape = a.astype(np.float64), b.astype(np.float64), self.shape(f"{module}.weight")
        if len(shape) == 3:
            update = b @ a.reshape(shape[0], -1, a.shape[-1])
        elif a.shape[0] == shape[0] != shape[1]:  # an embedding: no vocabulary is as large as a hidden state
            update = a @ b
        else:
            update = (a @ b).T
        if update.shape != shape:
            raise BadInput(
                f"the adapter's update of {module} is {list(update.shape)} and its weight in {self.folder} is "
                f"{list(shape)}; is it of another base?"
            )
        return (scale * update).astype(np.float32)

    def read_base(self, name: str) -> np.ndarray:
        return super().read(name)

    def read(self, name: str) -> np.ndarray:
        if self.method == "full":
            return self._trained(name) if name in self.changed else super().read(name)
        module = name.removesuffix(".weight")
        return super().read(name) + self.delta(module) if module in self.adapted else super().read(name)
