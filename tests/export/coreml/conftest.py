"""A base of two layers with a run of its own, and the folders that the target writes of it, each made once."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest
import yaml

from mlx_ssd import assets
from mlx_ssd.export import coreml
from mlx_ssd.export.source import Source, source_of
from tests.export.conftest import make_run

LAYERS = 2


def ignore(done: int, total: int) -> None:
    pass


def short_base(folder: Path) -> Path:
    """The embedded model's first layers: half its time to convert."""
    shutil.copytree(assets.model_path(), folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_hidden_layers": LAYERS, "layer_types": ["full_attention"] * LAYERS, "max_position_embeddings": 256}
    (folder / "config.json").write_text(json.dumps(config))
    weights = mx.load(str(folder / "model.safetensors"))
    kept = {name: w for name, w in weights.items() if "layers." not in name or int(name.split(".")[2]) < LAYERS}
    mx.eval(kept)
    (folder / "model.safetensors").unlink()
    mx.save_safetensors(str(folder / "model.safetensors"), kept, {"format": "mlx"})
    return folder


def add_arm(run: Path, source: Source) -> None:
    """A further arm, whose update is the student's taken away instead of added."""
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["arms"] = [{"name": "other", "set": {"train.epochs": 1}}]
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    folder = Path(shutil.copytree(source.adapter, arm_of(source)))
    factors = mx.load(str(folder / "adapters.safetensors"))
    turned = {name: -factor if name.endswith("lora_b") else factor for name, factor in factors.items()}
    mx.eval(turned)
    mx.save_safetensors(str(folder / "adapters.safetensors"), turned, {"format": "mlx"})


def arm_of(source: Source) -> Path:
    return source.files.directory / "round-1" / "arms" / "other" / "adapter"


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Callable[[str], tuple[Source, Path]]:
    """`made(precision)`: (source, folder), both to be left as they are."""
    pytest.importorskip("coremltools")
    place = tmp_path_factory.mktemp("coreml")
    run = make_run(place / "run", short_base(place / "base"))
    source = source_of(run)
    add_arm(run, source)

    def folder_of(precision: str) -> tuple[Source, Path]:
        folder = place / precision
        if not folder.exists():
            folder.mkdir()
            coreml.write(source, folder, precision, ignore)
        return source, folder

    return folder_of
