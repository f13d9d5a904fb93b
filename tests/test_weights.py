"""Tensors read one at a time: what mlx-lm's own modules hold, of any bits, with and without an adapter."""

import json
import shutil

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import dequantize_model

from mlx_ssd import assets
from mlx_ssd.errors import BadInput
from mlx_ssd.training import lora
from mlx_ssd.weights import AdaptedWeights, WeightFiles
from tests.families import family_folder
from tests.training.tiny import Settings, randomize_adapter, tiny_moe

Q_PROJ = "model.layers.1.self_attn.q_proj"


def quantized(folder, **settings):
    mlx_lm.convert(str(assets.model_path()), str(folder), quantize=True, **settings)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The embedded model as it is, in 4 and 8 bits, in a float format, and in mixed bits."""
    here = tmp_path_factory.mktemp("bases")

    def mixed(path, module):
        return {"bits": 8, "group_size": 32} if "down_proj" in path else "embed" not in path

    return {
        "float": assets.model_path(),
        "4": quantized(here / "4", q_bits=4, q_group_size=64),
        "8": quantized(here / "8", q_bits=8, q_group_size=32),
        "mxfp4": quantized(here / "mxfp4", q_mode="mxfp4", q_bits=4, q_group_size=32),
        "mixed": quantized(here / "mixed", q_bits=4, q_group_size=64, quant_predicate=mixed),
    }


def float32_model(folder, adapter=None):
    model = mlx_lm.load(str(folder), adapter_path=str(adapter) if adapter else None)[0]
    model.set_dtype(mx.float32)
    return model


@pytest.mark.parametrize("kind", ["float", "4", "8", "mxfp4", "mixed"])
def test_every_tensor_is_what_mlx_lm_holds(folders, kind):
    weights = WeightFiles(folders[kind])
    expected = dict(tree_flatten(dequantize_model(float32_model(folders[kind])).parameters()))
    assert sorted(weights.names) == sorted(expected)
    for name in weights.names:
        found = weights.read(name)
        assert found.dtype == np.float32 and found.shape == weights.shape(name) == expected[name].shape
        np.testing.assert_array_equal(found, np.array(expected[name].astype(mx.float32)), err_msg=name)


def test_bits_and_types_are_told(folders):
    mixed = WeightFiles(folders["mixed"])
    assert mixed.quantization(f"{Q_PROJ}.weight") == {"bits": 4, "group_size": 64, "mode": "affine"}
    assert mixed.quantization("model.layers.0.mlp.down_proj.weight") == {"bits": 8, "group_size": 32, "mode": "affine"}
    assert mixed.quantization("model.embed_tokens.weight") is None
    assert mixed.quantization("model.norm.weight") is None
    assert (mixed.dtype(f"{Q_PROJ}.weight"), mixed.dtype("model.norm.weight")) == ("uint32", "float32")
    assert f"{Q_PROJ}.weight" in mixed and f"{Q_PROJ}.bias" not in mixed
    assert WeightFiles(folders["mxfp4"]).quantization(f"{Q_PROJ}.weight")["mode"] == "mxfp4"


def test_half_precision_scales_are_multiplied_in_float32(tmp_path, folders):
    arrays = mx.load(str(folders["4"] / "model.safetensors"))
    arrays = {k: v.astype(mx.bfloat16) if mx.issubdtype(v.dtype, mx.floating) else v for k, v in arrays.items()}
    shutil.copyfile(folders["4"] / "config.json", tmp_path / "config.json")
    mx.save_safetensors(str(tmp_path / "model.safetensors"), arrays)
    integers, scales, biases = (arrays[f"{Q_PROJ}.{part}"] for part in ("weight", "scales", "biases"))
    codes = np.array(integers).view(np.uint8)
    codes = np.stack([codes & 15, codes >> 4], -1).reshape(128, -1, 64).astype(np.float32)
    expected = codes * np.array(scales.astype(mx.float32))[..., None] + np.array(biases.astype(mx.float32))[..., None]
    found = WeightFiles(tmp_path).read(f"{Q_PROJ}.weight")
    np.testing.assert_allclose(found, expected.reshape(128, 128), rtol=0, atol=1e-7)


def adapter_on(model, folder, **settings):
    """A random adapter of visible size, written as training does."""
    lora.attach(model, Settings(**settings))
    randomize_adapter(model)
    lora.write(model, Settings(**settings), folder)
    return folder


def fused(model):
    """Every module that wears an adapter, in mlx-lm's own fusion."""
    return {
        f"{path}.weight": np.array(module.fuse(dequantize=True).weight)
        for path, module in model.named_modules()
        if "lora_a" in module
    }


@pytest.mark.parametrize("kind", ["float", "4", "mixed"])
@pytest.mark.parametrize("keys", ["all", ["self_attn.q_proj", "mlp.down_proj"], ["model.embed_tokens"]])
def test_the_update_is_mlx_lms_own(folders, kind, keys, tmp_path):
    adapter = adapter_on(float32_model(folders[kind]), tmp_path / "adapter", keys=keys)
    weights = AdaptedWeights(folders[kind], adapter)
    expected = fused(float32_model(folders[kind], adapter))
    assert sorted(weights.changed) == sorted(expected) == sorted(f"{module}.weight" for module in weights.adapted)
    base = WeightFiles(folders[kind])
    for name in weights.names:
        whole = expected.get(name, base.read(name))
        np.testing.assert_allclose(weights.read(name), whole, rtol=0, atol=2e-6, err_msg=name)
        np.testing.assert_array_equal(weights.read_base(name), base.read(name))
    assert max(np.abs(weights.delta(module)).max() for module in weights.adapted) > 0.01


def test_an_untied_head_and_experts_are_adapted_too(tmp_path):
    model = tiny_moe()
    mx.save_safetensors(str(tmp_path / "model.safetensors"), dict(tree_flatten(model.parameters())))
    (tmp_path / "config.json").write_text(json.dumps(vars(model.args)))
    adapter = adapter_on(model, tmp_path / "adapter", experts=True)
    weights = AdaptedWeights(tmp_path, adapter)
    expected = fused(model)
    assert any("switch_mlp" in name for name in expected)
    for name, whole in expected.items():
        np.testing.assert_allclose(weights.read(name), whole, rtol=0, atol=2e-6, err_msg=name)


def test_full_fine_tuning_stands_in_the_place_of_what_it_trained(tmp_path):
    base = WeightFiles(assets.model_path())
    trained = {f"{Q_PROJ}.weight": mx.zeros((128, 128), mx.bfloat16), "model.norm.weight": mx.ones((128,))}
    lora.write_folder(tmp_path / "adapter", {"fine_tune_type": "full", "num_layers": -1}, trained)
    weights = AdaptedWeights(assets.model_path(), tmp_path / "adapter")
    assert (weights.method, weights.adapted, weights.changed) == ("full", [], sorted(trained))
    assert not weights.read(f"{Q_PROJ}.weight").any() and (weights.read("model.norm.weight") == 1).all()
    np.testing.assert_array_equal(weights.delta(Q_PROJ), -base.read(f"{Q_PROJ}.weight"))
    np.testing.assert_array_equal(weights.read("model.embed_tokens.weight"), base.read("model.embed_tokens.weight"))


class TestBadInput:
    def test_no_weights(self, tmp_path):
        (tmp_path / "config.json").write_text("{}")
        with pytest.raises(BadInput, match=r"has no model\*\.safetensors"):
            WeightFiles(tmp_path)

    def test_no_config(self, tmp_path):
        with pytest.raises(BadInput, match="config.json does not exist"):
            WeightFiles(tmp_path)

    def test_damaged_weights(self, tmp_path):
        (tmp_path / "config.json").write_text("{}")
        (tmp_path / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not json at all")
        with pytest.raises(BadInput, match="model.safetensors cannot be read"):
            WeightFiles(tmp_path)

    def test_bits_that_nobody_tells(self, folders, tmp_path):
        copy = shutil.copytree(folders["4"], tmp_path / "copy")
        config = json.loads((copy / "config.json").read_text())
        del config["quantization"], config["quantization_config"]
        (copy / "config.json").write_text(json.dumps(config))
        with pytest.raises(BadInput, match="says nothing of quantization"):
            WeightFiles(copy).read(f"{Q_PROJ}.weight")

    def write(self, folder, arrays, kind="lora"):
        parameters = {"rank": 2, "scale": 2.0, "dropout": 0.0}
        lora.write_folder(
            folder, {"fine_tune_type": kind, "num_layers": -1, "lora_parameters": parameters}, arrays
        )
        return folder

    def test_an_adapter_of_another_kind(self, tmp_path):
        adapter = self.write(tmp_path / "a", {f"{Q_PROJ}.m": mx.zeros(3)}, "dora")
        with pytest.raises(BadInput, match="holds a dora adapter; lora and full"):
            AdaptedWeights(assets.model_path(), adapter)

    def test_a_damaged_adapter(self, tmp_path):
        adapter = self.write(tmp_path / "a", {})
        (adapter / "adapters.safetensors").write_bytes(b"no")
        with pytest.raises(BadInput, match="adapters.safetensors cannot be read .*; train again"):
            AdaptedWeights(assets.model_path(), adapter)

    def test_an_adapter_of_another_base(self, tmp_path):
        pair = {"lora_a": mx.zeros((128, 2)), "lora_b": mx.zeros((2, 128))}
        strange = self.write(tmp_path / "a", {f"model.layers.9.self_attn.q_proj.{k}": v for k, v in pair.items()})
        with pytest.raises(BadInput, match=r"changes model.layers.9.self_attn.q_proj.weight, which .* does not have"):
            AdaptedWeights(assets.model_path(), strange)
        pair["lora_b"] = mx.zeros((2, 64))
        narrow = self.write(tmp_path / "b", {f"{Q_PROJ}.{k}": v for k, v in pair.items()})
        with pytest.raises(BadInput, match=r"is \[64, 128\] and its weight in .* is \[128, 128\]; is it of another"):
            AdaptedWeights(assets.model_path(), narrow).read(f"{Q_PROJ}.weight")


def test_a_module_of_its_own_precision_takes_no_mode_from_the_rest(tmp_path):
    """gpt-oss: experts in MXFP4, the others' 8 bits are affine though nothing says so; as mlx-lm loads them."""
    files = WeightFiles(family_folder(tmp_path / "model", "gpt-oss"))
    config = json.loads((tmp_path / "model" / "config.json").read_text())["quantization"]
    router, expert = (f"model.layers.0.mlp.{name}" for name in ("router", "experts.up_proj"))
    assert config["mode"] == "mxfp4" and "mode" not in config[router]
    assert files.quantization(f"{router}.weight") == {"bits": 8, "group_size": 64, "mode": "affine"}
    assert files.quantization(f"{expert}.weight") == {"bits": 4, "group_size": 32, "mode": "mxfp4"}
    model, _ = mlx_lm.load(str(tmp_path / "model"))
    held = dequantize_model(model).layers[0].mlp.router.weight.astype(mx.float32)
    assert np.abs(files.read(f"{router}.weight") - np.array(held)).max() < 0.01


def test_what_was_read_is_not_kept(folders):
    for kind in ("float", "4"):
        files = WeightFiles(folders[kind])
        before = mx.get_active_memory()
        for name in files.names:
            files.read(name)
        assert mx.get_active_memory() - before < 1000
