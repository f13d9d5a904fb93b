"""What Swift reads of a folder: mlx-swift-lm's adapter and model folders, and PEFT's, key by key.

An adapter of mlx-swift-lm needs rank and scale; dropout and keys may be absent, and then are not what was trained. Of
PEFT's it takes scale = lora_alpha / r, lora_A [r, in] and lora_B [out, r]. A model folder needs config.json, with
`quantization` where there is one, the weights with their index, the tokenizer and its template; no adapter beside them.
"""

import json

import mlx.core as mx
import pytest

from mlx_ssd import assets

KEYS = ["mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", "self_attn.k_proj", "self_attn.o_proj", "self_attn.q_proj"]
KEYS += ["self_attn.v_proj"]
LAST = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
NAMES = {"config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json"}
NAMES |= {"tokenizer.json", "tokenizer_config.json", "verify.json"}


def read(file):
    return json.loads(file.read_text())


def names_in(folder):
    return {path.name for path in folder.iterdir()} - {"README.md"}


def test_adapter(run_dir):
    folder = run_dir.exported("adapter") / "export/adapter"
    parameters = {"rank": 4, "scale": 2.0, "dropout": 0.0, "keys": KEYS}
    assert read(folder / "adapter_config.json") == {
        "fine_tune_type": "lora",
        "num_layers": 4,
        "lora_parameters": parameters,
    }
    arrays = mx.load(str(folder / "adapters.safetensors"))
    assert len(arrays) == 2 * 4 * 7
    assert arrays["model.layers.3.mlp.down_proj.lora_a"].shape == (384, 4)
    assert arrays["model.layers.3.mlp.down_proj.lora_b"].shape == (4, 128)
    assert names_in(folder) == {"adapters.safetensors", "adapter_config.json", "verify.json"}


def test_adapter_of_some_layers_and_modules(run_dir):
    choices = {"num_layers": 2, "keys": ["self_attn.q_proj", "mlp.down_proj"]}
    folder = run_dir.exported("adapter", **choices) / "export/adapter"
    config = read(folder / "adapter_config.json")
    assert (config["num_layers"], config["lora_parameters"]["keys"]) == (2, ["mlp.down_proj", "self_attn.q_proj"])


def test_peft(run_dir):
    run = run_dir.exported("peft")
    folder = run / "export/peft"
    config = read(folder / "adapter_config.json")
    assert config["lora_alpha"] / config["r"] == 2.0 and config["r"] == 4 and type(config["lora_alpha"]) is int
    assert (config["peft_type"], config["task_type"], config["bias"]) == ("LORA", "CAUSAL_LM", "none")
    assert (config["target_modules"], config["layers_to_transform"]) == (LAST, None)
    assert config["base_model_name_or_path"] == str(assets.model_path())
    arrays = mx.load(str(folder / "adapter_model.safetensors"))
    trained = mx.load(str(run / "round-1/adapter/adapters.safetensors"))
    assert len(arrays) == len(trained)
    for ours, theirs in (("lora_a", "lora_A"), ("lora_b", "lora_B")):
        array = arrays[f"base_model.model.model.layers.1.mlp.up_proj.{theirs}.weight"]
        assert mx.array_equal(array, trained[f"model.layers.1.mlp.up_proj.{ours}"].T)


@pytest.mark.parametrize("bits", [None, 8])
def test_mlx(bits, run_dir):
    run = run_dir.exported("mlx", bits=bits)
    folder = run / "export/mlx"
    assert names_in(folder) == (NAMES | {"chat_template.jinja"} if bits else NAMES), "as its base has them"
    config = read(folder / "config.json")
    assert config["model_type"] == "qwen3" and config["tie_word_embeddings"] is True
    arrays, metadata = mx.load(str(folder / "model.safetensors"), return_metadata=True)
    assert metadata["format"] == "mlx"
    if bits:
        wanted = {"group_size": 64, "bits": 8, "mode": "affine"}
        assert config["quantization"] == config["quantization_config"] == wanted
        assert arrays["model.embed_tokens.weight"].dtype == mx.uint32, "quantized as in the base"
    else:
        assert "quantization" not in config and "quantization_config" not in config
    index = read(folder / "model.safetensors.index.json")
    assert index["weight_map"] == dict.fromkeys(sorted(arrays), "model.safetensors")
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in arrays.values())
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if not bits:
            assert (folder / name).read_bytes() == (assets.model_path() / name).read_bytes()


def test_hf(run_dir):
    folder = run_dir.exported("hf", bits=8) / "export/hf"
    assert names_in(folder) == NAMES | {"chat_template.jinja"}
    config = read(folder / "config.json")
    assert config["dtype"] == "bfloat16" and config["architectures"] == ["Qwen3ForCausalLM"]
    assert not {"quantization", "quantization_config"} & set(config)
    arrays, metadata = mx.load(str(folder / "model.safetensors"), return_metadata=True)
    assert metadata["format"] == "pt" and {array.dtype for array in arrays.values()} == {mx.bfloat16}
    assert "model.layers.0.self_attn.q_proj.weight" in arrays and not any("scales" in name for name in arrays)
