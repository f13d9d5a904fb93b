"""A run of a random Qwen3 of two layers, and its exports, each converted once a session."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mlx_ssd import assets, export
from mlx_ssd.export.reference import Reference, reference_of
from mlx_ssd.export.source import Source, source_of
from mlx_ssd.layout import RunFiles
from tests.export.conftest import make_run

CONFIG = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2}
CONFIG |= {"num_key_value_heads": 1, "layer_types": ["full_attention"] * 2, "max_position_embeddings": 256}
TEXTS = 2  # of those that verification takes; float16 is slow on a CPU
ARM = "other"


def make_base(folder: Path) -> Path:
    """The embedded model's tokenizer and a random model of CONFIG, its norms random too."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(assets.model_path() / name, folder / name)
    config = json.loads((assets.model_path() / "config.json").read_text()) | CONFIG
    (folder / "config.json").write_text(json.dumps(config))
    hidden, wide, draw = 64, 96, np.random.default_rng(0)
    shapes = {"q_proj": (64, hidden), "k_proj": (32, hidden), "v_proj": (32, hidden), "o_proj": (hidden, 64)}
    weights = {"model.embed_tokens.weight": draw.normal(size=(config["vocab_size"], hidden)) * 0.3}
    for layer in (f"model.layers.{i}" for i in range(2)):
        for name, shape in shapes.items():
            weights[f"{layer}.self_attn.{name}.weight"] = draw.normal(size=shape) * 0.2
        for name, shape in (("gate_proj", (wide, hidden)), ("up_proj", (wide, hidden)), ("down_proj", (hidden, wide))):
            weights[f"{layer}.mlp.{name}.weight"] = draw.normal(size=shape) * 0.2
        for name, size in (("self_attn.q_norm", 32), ("self_attn.k_norm", 32), ("input_layernorm", hidden)):
            weights[f"{layer}.{name}.weight"] = 1 + 0.2 * draw.normal(size=size)
        weights[f"{layer}.post_attention_layernorm.weight"] = 1 + 0.2 * draw.normal(size=hidden)
    weights["model.norm.weight"] = 1 + 0.2 * draw.normal(size=hidden)
    arrays = {name: array.astype(np.float32) for name, array in weights.items()}
    save_file(arrays, folder / "model.safetensors", {"format": "mlx"})
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> tuple[Source, Reference]:
    """A run with a student and another arm, and its reference on TEXTS texts, the first drawn and a greedy one."""
    place = tmp_path_factory.mktemp("coreai")
    run = make_run(place / "run", make_base(place / "base"), update=0.3)
    files = RunFiles(run)
    arms = f"arms:\n- name: {ARM}\n  set: {{train.rank: 2}}\n"
    files.recipe.write_text(files.recipe.read_text().replace("arms: []\n", arms))
    shutil.copytree(make_run(place / "more", place / "base", update=0.6, rank=2) / "round-1" / "adapter",
                    RunFiles(run, ARM).adapter)  # fmt: skip
    source = source_of(run)
    reference = reference_of(source)
    drawn = len(reference.texts) // 2
    return source, _few(reference, [0, drawn])


def _few(reference: Reference, chosen: list[int]) -> Reference:
    texts = [reference.texts[i] for i in chosen]
    logits = {who: [np.array(list(reference.logits(who))[i]) for i in chosen] for who in ("student", "base")}
    reference.texts, reference.logits = texts, lambda who: iter(logits[who])
    return reference


@pytest.fixture(scope="session")
def source(made) -> Source:
    return made[0]


@pytest.fixture(scope="session")
def reference(made) -> Reference:
    return made[1]


@pytest.fixture(scope="session")
def exported(source, tmp_path_factory) -> Callable[[str], Path]:
    """`exported(precision)`: the folder, which must not be changed."""
    folders: dict[str, Path] = {}

    def of(precision: str) -> Path:
        if precision not in folders:
            folders[precision] = tmp_path_factory.mktemp(precision)
            export.get("coreai").write(source, folders[precision], precision, lambda done, total: None)
        return folders[precision]

    return of


@pytest.fixture
def copied(exported, tmp_path) -> Callable[[str], Path]:
    """A copy of it, to be damaged."""
    return lambda precision: Path(shutil.copytree(exported(precision), tmp_path / precision))
