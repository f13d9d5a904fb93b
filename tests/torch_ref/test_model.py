"""The twin's models: Transformers' own loading beside ours, tensors from stacked and quantized files, adapters."""

import json
import logging
import shutil

import mlx.core as mx
import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from mlx_ssd.assets import model_path
from mlx_ssd.errors import BadInput
from mlx_ssd.torch_ref.adapter import Adapter
from mlx_ssd.torch_ref.model import build, build_by_layer, logits
from mlx_ssd.torch_ref.weights import TorchWeights, dequantize
from mlx_ssd.weights import WeightFiles
from tests.parity.runs import moe_folder

IDS = range(3, 12), range(20, 40)


@pytest.fixture(scope="module")
def weights():
    return TorchWeights(model_path())


def test_our_tensors_make_the_model_that_transformers_loads(weights):
    ours = logits(build(model_path(), weights.names, weights.read), *IDS)
    theirs = AutoModelForCausalLM.from_pretrained(model_path(), dtype=torch.float32).eval()
    np.testing.assert_array_equal(ours, logits(theirs, *IDS))


def test_layer_by_layer_is_the_whole_and_holds_one_layer(weights):
    whole, parts = (make(model_path(), weights.names, weights.read) for make in (build, build_by_layer))
    held = []
    for layer in parts.model.layers:
        layer.register_forward_hook(lambda *_: held.append(sum(p.numel() for p in parts.model.layers.parameters())))
    np.testing.assert_array_equal(logits(whole, *IDS), logits(parts, *IDS))
    of_one = sum(p.numel() for p in whole.model.layers[0].parameters())
    assert len(held) == 4 and max(held) <= of_one
    assert sum(p.numel() for p in parts.model.layers.parameters()) == 0


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_integers_come_out_as_mlx_dequantizes_them(bits, dtype):
    mx.random.seed(bits)
    packed, scales, biases = mx.quantize(mx.random.normal((3, 5, 128)).astype(dtype), group_size=64, bits=bits)
    expected = mx.dequantize(packed, scales.astype(mx.float32), biases.astype(mx.float32), group_size=64, bits=bits)
    given = [torch.from_numpy(np.array(a.astype(mx.float32))) for a in (scales, biases)]
    found = dequantize(torch.from_numpy(np.array(packed)), *given, bits, 64)
    np.testing.assert_array_equal(found.numpy(), np.array(expected))


@pytest.mark.parametrize("bits", [None, 4])
def test_stacked_experts_go_where_transformers_has_them(tmp_path, bits):
    folder = moe_folder(tmp_path / "moe", bits)
    stacked = TorchWeights(folder)
    for name in stacked.names:
        np.testing.assert_array_equal(stacked.read(name).numpy(), WeightFiles(folder).read(name))
    found = logits(build(folder, stacked.names, stacked.read), *IDS)

    # As on the hub: each expert's matrices by themselves, which Transformers puts together itself.
    single = {}
    for name in stacked.names:
        tensor = stacked.read(name)
        if ".switch_mlp." in name:
            mlp, matrix = name.split(".switch_mlp.")
            single |= {f"{mlp}.experts.{i}.{matrix}": part.contiguous() for i, part in enumerate(tensor)}
        else:
            single[name] = tensor
    hub = tmp_path / "hub"
    shutil.copytree(folder, hub)
    save_file(single, hub / "model.safetensors", {"format": "pt"})
    config = json.loads((hub / "config.json").read_text())
    config = {key: value for key, value in config.items() if not key.startswith("quantization")}
    (hub / "config.json").write_text(json.dumps(config))
    theirs = AutoModelForCausalLM.from_pretrained(hub, dtype=torch.float32).eval()
    np.testing.assert_allclose(found, logits(theirs, *IDS), atol=1e-5)
    np.testing.assert_array_equal(found, logits(build(hub, single, single.__getitem__), *IDS))


def test_what_does_not_fit_is_told_in_a_sentence(weights, tmp_path):
    read = weights.read
    with pytest.raises(BadInput, match="lacks the tensor model.norm.weight"):
        build(model_path(), [name for name in weights.names if name != "model.norm.weight"], read)
    with pytest.raises(BadInput, match="has no tensor model.strange.weight"):
        build(model_path(), [*weights.names, "model.strange.weight"], read)
    with pytest.raises(BadInput, match=r"model.norm.weight has the shape \(64,\)"):
        build(model_path(), weights.names, lambda n: read(n)[:64] if n == "model.norm.weight" else read(n))
    shutil.copy(model_path() / "config.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x10" + bytes(20))
    with pytest.raises(BadInput, match="cannot be read"):
        TorchWeights(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"model_type": "unheard-of"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="no such model"):
        build(tmp_path, weights.names, read)


def test_an_adapter_is_its_update_and_can_be_taken_off(weights):
    names = ["model.layers.0.self_attn.q_proj", "model.layers.2.mlp.down_proj"]
    torch.manual_seed(0)
    tensors = {}
    for name in names:
        out, inner = weights.read(f"{name}.weight").shape
        tensors |= {f"{name}.lora_a": torch.randn(inner, 4) / 10, f"{name}.lora_b": torch.randn(4, out) / 10}

    def updated(name):
        module = name.removesuffix(".weight")
        update = 0
        if module in names:
            update = 1.5 * (tensors[f"{module}.lora_a"] @ tensors[f"{module}.lora_b"]).T
        return weights.read(name) + update

    model = build(model_path(), weights.names, weights.read)
    base = logits(model, *IDS)
    adapter = Adapter(model, tensors, 1.5)
    merged = logits(build(model_path(), weights.names, updated), *IDS)
    assert np.abs(merged - base).max() > 0.1
    np.testing.assert_allclose(logits(model, *IDS), merged, atol=1e-4)
    with adapter.off():
        np.testing.assert_array_equal(logits(model, *IDS), base)
    with pytest.raises(BadInput, match="model.layers.9.self_attn.q_proj"):
        Adapter(model, {"model.layers.9.self_attn.q_proj.lora_a": torch.zeros(1, 1)}, 1.0)
    with pytest.raises(BadInput, match="embedding"):
        Adapter(model, {"model.embed_tokens.lora_a": torch.zeros(1, 1)}, 1.0)


def test_known_noise_of_torchao_is_left_out_and_nothing_else(caplog):
    for name, message in (("torchao", "Failed to load a.so"), ("torchao", "Failed utterly"), ("other", "a word")):
        logging.getLogger(name).warning(message)
    assert [record.getMessage() for record in caplog.records] == ["Failed utterly", "a word"]
