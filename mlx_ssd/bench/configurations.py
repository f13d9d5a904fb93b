"""What is measured: a model or a run's arms, in which bits, for which lengths and batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlx_ssd import models
from mlx_ssd.errors import BadInput
from mlx_ssd.layout import MAIN
from mlx_ssd.sections import Model
from mlx_ssd.storage import read_json

OFF, ON, FUSED = WAYS = ("off", "on", "fused")
QUANTIZED = (2, 3, 4, 5, 6, 8)  # what MLX's affine quantization has
PLAIN = {16: "bfloat16", 32: "float32"}


@dataclass(frozen=True)
class Load:
    """How long: prompt tokens, generated tokens, and sequences side by side."""

    prompt: int
    generated: int
    batch: int = 1


@dataclass(frozen=True)
class Subject:
    """Which weights, and how they are held."""

    name: str  # for the reader, without the path of a folder
    folder: str
    revision: str  # of the exact weights
    way: str = OFF  # the adapter: off, on (beside the weights), fused (in them)
    adapter: str | None = None
    dtype: str = "auto"  # as models.load takes it
    bits: int | None = None  # None: as stored

    @property
    def made_in_memory(self) -> bool:
        """It is not what stands on the disk, so its load time is none of an app's."""
        return self.way == FUSED or self.bits in QUANTIZED


@dataclass(frozen=True)
class Configuration:
    subject: Subject
    load: Load


def subjects_of(what: str, ways: Sequence[str] = (), arm: str = MAIN, dtype: str = "auto") -> list[Subject]:
    """Of a run directory its base and its arm, adapter on and fused, or those `ways` that are given; of a model (a
    folder, a hub name or "embedded") itself.

    Raises BadInput for what is neither, and for ways that it does not have.
    """
    if not (Path(what) / "recipe.yaml").exists():
        if set(ways) - {OFF}:
            raise BadInput(f"--adapter {','.join(ways)}: {what} is no run directory, so there is no adapter")
        source = models.locate(Model(path=what))
        return [Subject(_short(what), str(source.path), source.revision, dtype=dtype)]

    from mlx_ssd.export.source import source_of

    source = source_of(Path(what), arm)
    dtype = source.recipe.model.dtype if dtype == "auto" else dtype
    adapter, folder = str(source.adapter), str(source.base.path)
    lora = source.adapter_config["fine_tune_type"] == "lora"
    if FUSED in ways and not lora:
        raise BadInput(f"--adapter fused: {what} was trained whole, which is no adapter to fuse; leave it out")
    found = [Subject(source.base_name, folder, source.base.revision, dtype=dtype)]
    name = source.base_name if arm == MAIN else f"{source.base_name} {arm}"
    found += [Subject(name, folder, source.revision, way, adapter, dtype) for way in ((ON, FUSED) if lora else (ON,))]
    return [subject for subject in found if subject.way in (ways or WAYS)]


def in_bits(subject: Subject, bits: int) -> Subject:
    """The same in other bits: 32 and 16 (bfloat16) as they are, fewer quantized in memory.

    Raises BadInput for bits that there are not, and for a model that is stored in other ones: what rounding a rounded
    model costs is nobody's question.
    """
    if bits not in QUANTIZED and bits not in PLAIN:
        raise BadInput(f"--bits {bits}: give {', '.join(map(str, (*QUANTIZED, *PLAIN)))}")
    stored = stored_bits(Path(subject.folder))
    if stored == bits:
        return subject
    if stored:
        raise BadInput(f"--bits {bits}: {subject.name} is stored in {stored} bits; give {stored}, or its full model")
    changes = {"dtype": PLAIN[bits]} if bits in PLAIN else {}
    return Subject(**(vars(subject) | changes | {"bits": bits}))


def stored_bits(folder: Path) -> int | None:
    """Of a quantized model, the most frequent; None of one in full precision."""
    config = read_json(folder / "config.json")
    return (config.get("quantization") or config.get("quantization_config") or {}).get("bits")


def configurations(
    subjects: Sequence[Subject],
    bits: Sequence[int] = (),
    prompts: Sequence[int] = (512,),
    generated: Sequence[int] = (128,),
    batches: Sequence[int] = (1,),
) -> list[Configuration]:
    """All combinations. Raises BadInput for lengths that a model was not made for, or that tell nothing."""
    if min((*prompts, *batches), default=1) < 1:
        raise BadInput("-p and -b: give 1 or more")
    if min(generated, default=2) < 2:
        raise BadInput("-n: give 2 or more; the first token belongs to the prompt, and a rate needs one after it")
    held = [in_bits(subject, width) for subject in subjects for width in bits] if bits else list(subjects)
    loads = [Load(p, n, b) for p in prompts for n in generated for b in batches]
    for subject in held:
        config = read_json(Path(subject.folder) / "config.json")
        most = (config.get("text_config") or config).get("max_position_embeddings")
        longest = max(load.prompt + load.generated for load in loads)
        if most and longest > most:
            raise BadInput(f"{subject.name} was made for {most:,} tokens, and -p and -n are {longest:,}; give fewer")
    return [Configuration(subject, load) for subject in held for load in loads]


def _short(what: str) -> str:
    return what if what == "embedded" or models.is_hub_name(what) else Path(what).expanduser().resolve().name
