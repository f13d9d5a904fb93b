"""The README.md of an export: every figure is the run's own."""

import json
import re

import pytest
import yaml

from mlx_ssd import models
from mlx_ssd.export import card, swift
from mlx_ssd.export.__main__ import make
from mlx_ssd.export.source import source_of

SCORE = {
    "arm": "base", "suite": "embedded-test", "decoding": "t0.9-k20-p0.8", "problems": 200, "samples_per_problem": 8,
    "pass_at": {"1": {"mean": 0.644375, "low": 0.585625, "high": 0.701875}},
}  # fmt: skip
DIFFERENCE = {"mean": 0.036875, "low": 0.01, "high": 0.064375}


@pytest.fixture
def source(run_dir):
    return source_of(run_dir())


def front_matter(text):
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)[1])


def facts_of(folder):
    return json.loads((folder / "verify.json").read_text())


def test_comes_with_every_export(source):
    make(source, "adapter", "float32")
    folder = source.exports / "adapter"
    text, facts = (folder / "README.md").read_text(), facts_of(folder)
    assert text.startswith("---\n") and "# run-student, adapter in float32" in text
    assert f"`embedded`, revision `{source.base.revision}`" in text
    assert f"student `{source.revision}`" in text
    assert f"| the student as trained | {facts['conversion']['max_abs']:.2g} |" in text
    assert f"the base's is {facts['kept']['kl_base']:.2g}" in text
    assert "Not run on an iPhone" in text and "iOS 17, macOS 14" in text
    assert "--adapter-path adapter" in text and "`swift/adapter`" in text
    assert (source.exports / "swift" / "adapter" / "Package.swift").exists()
    assert "has not been evaluated" in text
    weights = sum(size for file, size in facts["bytes"].items() if file.endswith(".safetensors"))
    weights += (source.base.path / "model.safetensors").stat().st_size
    assert f"| 1,024 | {weights / 1e6:.1f} MB | 1.0 MB |" in text  # 1,024 tokens x 4 layers x 64 x 2 x 2 bytes


def test_both_errors_where_bits_were_lost(source):
    make(source, "mlx", "4bit")
    text, facts = ((source.exports / "mlx-4bit" / "README.md").read_text(), facts_of(source.exports / "mlx-4bit"))
    for key, name in (("conversion", "the student in the same precision"), ("compression", "the student as trained")):
        found = facts[key]
        row = f"| {name} | {found['max_abs']:.2g} | {found['kl_mean']:.2g} | {100 * found['top1']:.1f} % |"
        assert row in text
    assert "mlx_lm.generate --model mlx-4bit" in text


FACTS = {
    "bytes": {"model.gguf": 5_000_000, "tokenizer.json": 1_000_000},
    "texts": {"count": 16, "from": "somewhere"},
    "checked_by": "a reader",
    "conversion": {"max_abs": 0.25, "kl_mean": 1e-5, "top1": 0.995},
    "kept": {"kl_exported": 1e-5, "kl_base": 0.01},
}


def test_scores_with_intervals(source):
    student = SCORE | {"arm": "student", "pass_at": {"1": {"mean": 0.68125, "low": 0.637, "high": 0.726}}}
    others = [SCORE | {"arm": "two-stage"}, SCORE | {"arm": "tokens"}]
    comparisons = [
        {"baseline": "base", "arm": "student", "difference": {"1": DIFFERENCE}},
        {"baseline": "two-stage", "arm": "student", "difference": {"1": DIFFERENCE | {"mean": 9}}},
        {"baseline": "base", "arm": "tokens", "difference": {"1": DIFFERENCE | {"mean": 9}}},
    ]
    source.files.scores.write_text(json.dumps({"scores": [SCORE, *others, student], "comparisons": comparisons}))
    text = card.render(source, "gguf", "Q8_0", FACTS)
    table = [line for line in text.splitlines() if line.startswith(("| base", "| student |", "| difference", "| t"))]
    assert table[:3] == [
        "| base | 64.4 [58.6, 70.2] |",
        "| student | 68.1 [63.7, 72.6] |",
        "| difference, points | +3.7 [+1.0, +6.4] |",
    ]
    assert text.count("| difference, points |") == 1
    assert "| two-stage" not in text and "| tokens" not in text
    assert "200 problems of embedded-test, 8 samples each, at T 0.9, top-k 20, top-p 0.8" in text
    source.files.scores.write_text(json.dumps({"scores": [SCORE | {"pass_at": {}}], "comparisons": []}))
    assert "was not measured" in card.render(source, "gguf", "Q8_0", FACTS)


def test_tokenizers_are_not_held_in_memory(source):
    text = card.render(source, "gguf", "Q8_0", FACTS)
    assert "6.0 MB." in text and "| 1,024 | 5.0 MB |" in text


@pytest.mark.parametrize(
    "readme, licence",
    [
        ("---\nlicense: apache-2.0\ntags:\n- code\n---\n# A\n", "apache-2.0"),
        ("# A\nlicense: mit\n", None),
        ("---\n: [\n---\n", None),
        ("---\n- a list\n---\n", None),
        ("---\nlicense:\n- a\n---\n", None),
        ("---\n---\n", None),
        (None, None),
    ],
)
def test_licence_of_the_base(tmp_path, readme, licence):
    if readme is not None:
        (tmp_path / "README.md").write_text(readme)
    assert card.licence_of(tmp_path) == licence
    (tmp_path / "LICENSE").write_text("...")
    assert card.licence_of(tmp_path) == (licence or "LICENSE of the base")


def test_front_matter_names_the_base_on_the_hub(source, monkeypatch):
    assert front_matter(card.render(source, "gguf", "Q8_0", FACTS)) == {
        "library_name": "gguf", "pipeline_tag": "text-generation", "tags": ["self-distillation", "code"],
    }  # fmt: skip
    model = source.recipe.model.model_copy(update={"path": "owner/name"})
    object.__setattr__(source, "recipe", source.recipe.model_copy(update={"model": model}))
    monkeypatch.setattr(card, "licence_of", lambda base: "apache-2.0")
    text = card.render(source, "adapter", "float32", FACTS)
    expected = {"license": "apache-2.0", "base_model": "owner/name", "base_model_relation": "adapter"}
    assert front_matter(text).items() >= expected.items()
    assert "Licence: apache-2.0," in text


def test_the_path_of_a_folder_stays_private(run_dir):
    source = source_of(run_dir(bits=4))
    assert source.base_name == source.base.path.name and not models.is_hub_name(source.recipe.model.path)
    text = card.render(source, "adapter", "float32", FACTS) + "".join(swift.values_of(source, "adapter", "x").values())
    assert str(source.base.path.parent) not in text
