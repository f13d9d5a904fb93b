"""Each format of each base: the conversion keeps what it should, and what is in the folder is what was asked for."""

import json
import shutil

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import qwen3_moe

from mlx_ssd import assets
from mlx_ssd.errors import BadInput
from mlx_ssd.export import bits, fused, peft
from mlx_ssd.export.__main__ import make
from mlx_ssd.export.source import source_of
from mlx_ssd.models import load, locate
from mlx_ssd.sections import Model
from mlx_ssd.weights import AdaptedWeights, WeightFiles
from tests.architectures import COMMON, MOE, ROPE
from tests.export.conftest import invoke, make_run


def facts_of(run, folder):
    return json.loads((run / "export" / folder / "verify.json").read_text())


@pytest.mark.parametrize(
    "target, precision, folder, choices",
    [
        ("adapter", None, "adapter", {"bits": 4}),
        ("peft", None, "peft", {"bits": 4}),
        ("hf", None, "hf", {"method": "full"}),
        ("hf", None, "hf", {"dtype": "bfloat16"}),
        ("mlx", None, "mlx", {}),
        ("mlx", None, "mlx", {"dtype": "bfloat16"}),
        ("mlx", None, "mlx", {"method": "full"}),
        ("mlx", "bfloat16", "mlx-bfloat16", {"bits": 4}),
        ("mlx", "8bit", "mlx-8bit", {"bits": 4}),
        ("mlx", "4bit", "mlx-4bit", {"update": 0.5}),
    ],
)
def test_the_conversion_is_right(target, precision, folder, choices, run_dir):
    run = run_dir.exported(target, precision, **choices)
    facts = facts_of(run, folder)
    conversion = facts["conversion"]
    assert conversion["max_abs"] <= 1e-3 and conversion["clear_top1"] == 1.0 and conversion["clear_positions"] > 50
    assert conversion["greedy_match"] == conversion["greedy_tokens"] or "compression" in facts
    assert 0 <= facts["kept"]["kl_exported"] < 0.5 * facts["kept"]["kl_base"]
    assert ("compression" in facts) == (target != "adapter")
    assert conversion["max_abs"] <= facts.get("compression", conversion)["max_abs"] + 1e-3
    if layers := facts["kept"].get("layers"):
        assert [row.get("layer") for row in layers] == [0, 1, 2, 3] + [None] * (choices.get("method") == "full")
        assert all(row["share"] == pytest.approx(1, abs=0.02) and row["noise"] < 0.5 for row in layers)


@pytest.mark.parametrize("target, folder", [("hf", "hf"), ("mlx", "mlx")])
def test_weights_are_the_students(target, folder, run_dir):
    run = run_dir.exported(target)
    source = source_of(run)
    student, written = AdaptedWeights(source.base.path, source.adapter), WeightFiles(run / "export" / folder)
    assert sorted(written.names) == sorted(student.names)
    for name in student.names:
        whole = mx.array(student.read(name))
        whole = whole.astype(mx.bfloat16).astype(mx.float32) if target == "hf" else whole
        found = mx.array(written.read(name))
        # Of two ways to add up, now and then one falls on the other side of a bfloat16 step.
        assert mx.allclose(found, whole, rtol=2**-8 if target == "hf" else 1e-6, atol=1e-6).item(), name
        assert mx.mean(mx.abs(found - whole) < 2e-6).item() > 0.999


def test_only_what_was_trained_is_quantized_again(run_dir):
    choices = {"num_layers": 1, "keys": ["mlp.down_proj"], "update": 0.5}
    run = run_dir.exported("mlx", bits=8, **choices)
    base = mx.load(str(source_of(run).base.path / "model.safetensors"))
    written = mx.load(str(run / "export/mlx/model.safetensors"))
    assert set(base) == set(written)
    changed = {name.rpartition(".")[0] for name in base if not mx.array_equal(base[name], written[name])}
    assert changed == {"model.layers.3.mlp.down_proj"}
    assert {name: array.dtype for name, array in base.items()} == {n: array.dtype for n, array in written.items()}


def test_a_quantizer_gets_the_bases_own_integers(run_dir, monkeypatch):
    seen = []

    def spy(weight, bits, group_size, mode, base, dtype):
        seen.append((weight.shape, weight.dtype, bits, group_size, mode, dtype))
        assert mx.abs(mx.dequantize(*base, group_size, bits) - weight).max().item() > 0.01
        assert mx.allclose(mx.dequantize(*base, group_size, bits), whole, atol=1e-6).item(), "the base's own"
        return plain(weight, bits, group_size, mode, base, dtype)

    plain = bits.plain
    run = run_dir(bits=8, num_layers=1, keys=["mlp.down_proj"], update=0.5)
    whole = mx.array(WeightFiles(source_of(run).base.path).read("model.layers.3.mlp.down_proj.weight"))
    monkeypatch.setitem(bits.QUANTIZERS, "plain", spy)
    monkeypatch.setattr(bits, "quantizer_of", lambda bits: "plain")
    make(source_of(run), "mlx", "base")
    assert seen == [((128, 384), mx.float32, 8, 64, "affine", mx.float32)] * 2, "the export, and its reference"


class TestLayout:
    @pytest.fixture
    def model(self):
        return load(locate(Model()))[0]

    def test_of_a_base_without_bits(self, model):
        assert set(bits.layout(model, "base").values()) == {None}
        found = bits.layout(model, "4bit")
        assert len(found) == 4 * 7 + 1 and "model.embed_tokens" in found
        assert all(one == {"bits": 4, "group_size": 64, "mode": "affine"} for one in found.values())

    def test_what_the_base_does_not_quantize_stays(self, model):
        nn.quantize(model, 32, 4, class_predicate=lambda path, module: path.endswith(("q_proj", "embed_tokens")))
        found = bits.layout(model, "8bit")
        assert found["model.layers.0.self_attn.k_proj"] is None
        assert found["model.embed_tokens"] == {"bits": 8, "group_size": 32, "mode": "affine"}
        assert bits.layout(model, "base")["model.embed_tokens"] == {"bits": 4, "group_size": 32, "mode": "affine"}
        assert set(bits.layout(model, "bfloat16").values()) == {None}

    def test_groups_that_fit_nothing_are_refused(self, monkeypatch, model):
        monkeypatch.setattr(bits, "GROUP_SIZE", 100)
        with pytest.raises(BadInput, match="--precision 4bit: no weight of this model has groups of 100"):
            bits.layout(model, "4bit")

    def test_config_has_the_usual_bits_and_the_others_by_name(self):
        four, eight = ({"bits": n, "group_size": 64, "mode": "affine"} for n in (4, 8))
        assert bits.config_of({"a": four, "b": eight, "c": four, "d": None}) == four | {"b": eight}


class TestPeftModules:
    MODULES = [f"model.layers.{i}.{key}" for i in range(3) for key in ("self_attn.q_proj", "mlp.up_proj")] + ["lm_head"]

    def targets(self, *adapted):
        found = peft._targets(sorted(adapted), self.MODULES)
        return found["target_modules"], found["layers_to_transform"]

    def test_in_all_layers(self):
        assert self.targets(*self.MODULES[:-1]) == (["q_proj", "up_proj"], None)
        assert self.targets(*self.MODULES) == (["lm_head", "q_proj", "up_proj"], None)

    def test_in_some_layers(self):
        assert self.targets(*self.MODULES[2:6]) == (["q_proj", "up_proj"], [1, 2])

    def test_where_no_rule_fits_by_whole_names(self):
        odd = ["model.layers.0.mlp.up_proj", "model.layers.2.self_attn.q_proj"]
        assert self.targets(*odd) == (odd, None)


def test_peft_of_some_layers_and_of_no_rule(run_dir):
    run = run_dir.exported("peft", num_layers=2, keys=["self_attn.q_proj", "mlp.down_proj"])
    config = json.loads((run / "export/peft/adapter_config.json").read_text())
    assert (config["target_modules"], config["layers_to_transform"]) == (["down_proj", "q_proj"], [2, 3])
    assert facts_of(run, "peft")["conversion"]["max_abs"] <= 1e-3


def test_peft_beside_a_quantized_base_names_the_original(run_dir):
    text = (run_dir.exported("peft", bits=4) / "export/peft/README.md").read_text()
    assert "quantized by MLX, which Transformers does not read: take the 16-bit model" in text
    assert "quantized" not in (run_dir.exported("peft") / "export/peft/README.md").read_text()


def test_peft_refuses_the_embedding(run_dir, here):
    result = invoke(run_dir(keys=["model.embed_tokens"]), "--target", "peft")
    assert result.exit_code == 1 and "model.embed_tokens is an embedding, whose adapters PEFT" in result.stderr


def test_an_adapted_embedding_in_the_other_formats(run_dir):
    run = run_dir(keys=["model.embed_tokens", "self_attn.q_proj"])
    for target, precision in (("adapter", "float32"), ("mlx", "base"), ("hf", "bfloat16")):
        make(source_of(run), target, precision)
        assert facts_of(run, target)["conversion"]["max_abs"] <= 1e-3
    config = json.loads((run / "export/adapter/adapter_config.json").read_text())
    assert config["lora_parameters"]["keys"] == ["model.embed_tokens", "self_attn.q_proj"]


@pytest.fixture
def mixture(tmp_path):
    """A run of a mixture of experts, its adapter on attention and experts."""
    base = tmp_path / "moe"
    base.mkdir()
    sizes = {"model_type": "qwen3_moe", "tie_word_embeddings": False, "vocab_size": 704, "hidden_size": 64}
    config = COMMON | ROPE | MOE | sizes | {"moe_intermediate_size": 64}
    mx.random.seed(0)
    model = qwen3_moe.Model(qwen3_moe.ModelArgs.from_dict(config))
    mx.save_safetensors(str(base / "model.safetensors"), dict(tree_flatten(model.parameters())))
    (base / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(assets.model_path() / name, base / name)
    return make_run(tmp_path / "run", base, keys=["self_attn.q_proj", "self_attn.o_proj"], update=1.0)


def test_a_mixture_of_experts(mixture, here):
    for target, precision, folder in (("adapter", "float32", "adapter"), ("mlx", "8bit", "mlx-8bit")):
        result = invoke(mixture, "--target", target, "--precision", precision)
        assert result.exit_code == 0, result.output
        assert facts_of(mixture, folder)["conversion"]["max_abs"] <= 1e-3
    written = mx.load(str(mixture / "export/mlx-8bit/model.safetensors"))
    assert written["model.layers.0.mlp.switch_mlp.up_proj.scales"].shape == (8, 64, 1)
    for target in ("hf", "peft"):
        result = invoke(mixture, "--target", target)
        assert result.exit_code == 2 and "the model has experts, which mlx-lm stacks" in result.stderr


def test_fusing_lets_no_small_update_fall_out_of_half_precision(run_dir):
    source = source_of(run_dir(dtype="bfloat16", update=0.002))
    found = {path: fused.fuse(m) for path, m in fused.modules(fused.lazily(source)).items() if fused.wears(m)}
    student = AdaptedWeights(source.base.path, source.adapter)
    assert len(found) == 28
    for path, module in found.items():
        assert module.weight.dtype == mx.float32
        assert mx.allclose(module.weight, mx.array(student.read(f"{path}.weight")), rtol=0, atol=1e-7).item()
