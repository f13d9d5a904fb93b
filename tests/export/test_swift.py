"""The Swift packages: nothing left open in them, and the names are those that the exporters write."""

import importlib
import re

import pytest

from mlx_ssd import export
from mlx_ssd.export import swift
from mlx_ssd.export.source import source_of
from mlx_ssd.storage import read_json

HERE = [name for name in swift.TARGETS if name in export.TARGETS]
DEPENDENCIES = {
    "adapter": {"ml-explore/mlx-swift-lm": "3.31.4", "huggingface/swift-transformers": "1.3.3"},
    "mlx": {"ml-explore/mlx-swift-lm": "3.31.4", "huggingface/swift-transformers": "1.3.3"},
    "coreml": {"huggingface/swift-transformers": "1.3.3"},
    "coreai": {"apple/coreai-models": "0.2.0"},
}


@pytest.fixture
def source(run_dir):
    return source_of(run_dir())


def sources(source, name):
    folder = swift.write(source, name, f"{name}-x")
    assert folder == source.exports / "swift" / f"{name}-x"
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("name", HERE)
def test_package_is_whole(source, name):
    files = sources(source, name)
    assert sorted(files) == ["Package.swift", "Sources/Student/Student.swift", "Sources/chat/main.swift"]
    student = files["Sources/Student/Student.swift"]
    for text in files.values():
        assert not re.search(r"\{\{|\}\}", text)
        code = re.sub(r'"(\\.|[^"\\])*"|//[^\n]*', "", text)
        for left, right in ("()", "[]", "{}"):
            assert code.count(left) == code.count(right)
    assert f"{name}-x" in student and source.name in student


@pytest.mark.parametrize("name", HERE)
def test_versions_are_exact(source, name):
    package = sources(source, name)["Package.swift"]
    found = re.findall(r'\.package\(url: "https://github\.com/([^"]+)", exact: "([\d.]+)"\)', package)
    assert dict(found) == DEPENDENCIES[name] and package.count(".package(url:") == len(found)
    systems = {found[0]: found[1] for found in re.findall(r'\.(macOS|iOS)\(\.?v?"?(\d+)', package)}
    assert swift.SYSTEMS[name] == f"iOS {systems['iOS']}, macOS {systems['macOS']}"
    for version in DEPENDENCIES[name].values():
        assert version in package.split("let package")[0]
    assert package.startswith("// swift-tools-version: 6.")


@pytest.mark.parametrize("name", HERE)
def test_settings_are_those_of_the_evaluation(source, name):
    student = sources(source, name)["Sources/Student/Student.swift"]
    recipe = source.recipe
    assert f"maxTokens: Int = {recipe.evaluate.max_tokens}" in student
    assert swift.literal(recipe.prompt.system) in student
    if name in ("adapter", "mlx"):
        decoding = recipe.evaluate.decoding
        settings = f"temperature: {decoding.temperature:g}, topP: {decoding.top_p:g}, topK: {decoding.top_k})"
        assert settings in student


def test_without_a_system_message(run_dir):
    source = source_of(run_dir())
    bare = source.recipe.model_copy(update={"prompt": source.recipe.prompt.model_copy(update={"system": ""})})
    object.__setattr__(source, "recipe", bare)
    assert "instructions: nil," in sources(source, "mlx")["Sources/Student/Student.swift"]
    values = swift.values_of(source, "mlx", "mlx")
    assert values["system"] == values["instructions_argument"] == ""


@pytest.mark.skipif("coreml" not in HERE, reason="no such target")
def test_names_of_core_ml(source):
    contract = importlib.import_module("mlx_ssd.export.coreml.contract")
    student = sources(source, "coreml")["Sources/Student/Student.swift"]
    assert re.findall(r'"(\w+)": MLTensor', student) == [contract.IDS, contract.MASK]
    assert re.findall(r'outputs\["(\w+)"\]', student) == [contract.LOGITS]
    assert re.findall(r'appending\(path: "([^"]+)"\)', student) == [contract.PACKAGE, contract.TOKENIZER]
    assert f"context = {read_json(source.base.path / 'config.json')['max_position_embeddings']} " in student


@pytest.mark.skipif("coreai" not in HERE, reason="no such target")
def test_names_of_core_ai(source):
    bundle = importlib.import_module("mlx_ssd.export.coreai.bundle")
    student = sources(source, "coreai")["Sources/Student/Student.swift"]
    for name in (*bundle.INPUTS, *bundle.STATES, bundle.LOGITS):
        assert re.search(rf"///.*\b{name}\b", student)


def test_files_of_an_adapter_are_where_mlx_swift_lm_looks():
    from mlx_ssd.export import adapter

    assert adapter.FILES == ("adapters.safetensors", "adapter_config.json")  # LoRAContainer.from(directory:)


@pytest.mark.parametrize("name", ["gguf", "peft", "hf"])
def test_other_targets_have_none(source, name):
    assert swift.write(source, name, name) is None and not (source.exports / "swift").exists()


def test_strings():
    assert swift.literal('a "b" \\(c)\n§\x00') == '"a \\"b\\" \\\\(c)\\n§\\u{0000}"'
    with pytest.raises(KeyError):
        swift.filled("{{nothing}}", {})
