"""The bundle as Apple's Swift package decodes it, and what is refused before anything is converted."""

import dataclasses
import importlib.metadata
import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest

from mlx_ssd import export, machine
from mlx_ssd.errors import BadInput
from mlx_ssd.export import coreai
from mlx_ssd.export.coreai import bundle

# Fields and types that ModelBundle and LanguageConfig decode, and what Apple's own exporter writes beside them.
SCHEMA = {
    "metadata_version": str,
    "kind": str,
    "name": str,
    "assets": {"main": str},
    "language": {
        "tokenizer": str,
        "vocab_size": int,
        "max_context_length": int,
        "embedded_tokenizer": bool,
        "function_map": {"main": list},
    },
    "source": {"model_definition": str, "hf_model_id": str},
    "compression": (str, type(None)),
    "compilation": {"date": str, "targets": list},
    "user_data": {"base_revision": str, "student": str},  # a dictionary of strings, of any keys
}


def conforms(value, schema) -> bool:
    if isinstance(schema, dict):
        return value.keys() == schema.keys() and all(conforms(value[key], schema[key]) for key in schema)
    return isinstance(value, schema)


@pytest.mark.parametrize(("precision", "compression"), [("float16", None), ("int4", "int4"), ("adapters", None)])
def test_metadata_is_of_schema_02(precision, compression, source, tmp_path):
    bundle.write(source, tmp_path, precision)
    facts = json.loads((tmp_path / "metadata.json").read_text())
    assert conforms(facts, SCHEMA)
    assert (facts["metadata_version"], facts["kind"], facts["name"]) == ("0.2", "llm", source.name)
    assert facts["assets"]["main"] == f"{source.name}.aimodel" and facts["compression"] == compression
    language = facts["language"]
    assert (language["vocab_size"], language["max_context_length"]) == (704, 256)
    assert language["embedded_tokenizer"] is True and language["function_map"] == {"main": ["main"]}
    assert "/" not in language["tokenizer"] + facts["source"]["hf_model_id"]  # no path of this disk
    assert set(facts["user_data"].values()) == {source.base.revision, source.revision}


def test_the_tokenizer_is_the_bases(source, tmp_path):
    from transformers import AutoTokenizer

    bundle.write(source, tmp_path, "float16")
    names = {"tokenizer.json", "tokenizer_config.json"}
    assert {file.name for file in (tmp_path / "tokenizer").iterdir()} == names
    ours, theirs = (AutoTokenizer.from_pretrained(path) for path in (tmp_path / "tokenizer", source.base.path))
    messages = [{"role": "user", "content": "def f(x): return x"}]
    assert ours.apply_chat_template(messages, tokenize=False) == theirs.apply_chat_template(messages, tokenize=False)
    assert ours.encode("def f(x):") == theirs.encode("def f(x):")


def test_a_base_without_tokenizer_json_is_refused(source, tmp_path):
    base = Path(shutil.copytree(source.base.path, tmp_path / "base"))
    (base / "tokenizer.json").unlink()
    lacking = dataclasses.replace(source, base=dataclasses.replace(source.base, path=base))
    with pytest.raises(BadInput, match="has no tokenizer.json, which apps read"):
        bundle.write(lacking, tmp_path, "float16")


def test_a_long_context_is_cut():
    assert bundle.context_length({"max_position_embeddings": 40960}) == 4096
    assert bundle.context_length({"max_position_embeddings": 1024}) == 1024


def test_other_architectures_are_refused(source):
    pytest.importorskip("coreai")
    assert coreai.refuse(source.config, source.adapter_config) is None
    assert "only dense Qwen3" in coreai.refuse(source.config | {"model_type": "llama"}, source.adapter_config)


def test_a_model_that_does_not_fit_is_refused_before_it_is_read(source, tmp_path, monkeypatch):
    pytest.importorskip("coreai_torch")
    from mlx_ssd.export.coreai import memory
    from mlx_ssd.weights import WeightFiles

    weights = WeightFiles(source.base.path)
    half = 2 * sum(weights.read(name).size for name in weights.names)
    needed = memory.needed(weights, "float16")
    assert needed - memory.BESIDE >= 2 * half
    monkeypatch.setattr(machine.memory, "limit_bytes", lambda: needed - 1)
    with pytest.raises(BadInput, match=r"about 1 GB of memory to convert in float16 and verify; .*take --target mlx"):
        coreai.write(source, tmp_path, "float16", lambda done, total: pytest.fail("it was read"))


def test_other_versions_are_refused(source, monkeypatch):
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "1.0.0b4" if name == "coreai-core" else version(name)
    )
    reason = coreai.refuse(source.config, source.adapter_config)
    assert reason.startswith("coreai-core 1.0.0b4 is installed, and exports are made with 1.0.0b3")


def test_the_extra_pins_the_versions_that_are_asked_for():
    project = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    extra = re.search(r"^coreai = \[(.*)\]", project, re.M)[1]
    pinned = dict(re.findall(r'"(coreai-\w+)==([^"]+)"', extra))
    assert pinned.items() <= coreai.VERSIONS.items() and len(pinned) == 2


def test_a_missing_extra_is_one_sentence(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("coreai") else found(name))
    with pytest.raises(BadInput, match=r"needs coreai, coreai_torch, coreai_opt: pip install -e '\.\[coreai\]'$"):
        export.get("coreai")
