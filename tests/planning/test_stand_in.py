"""The stand-in that is measured: as many bytes as the model's own layers, quantized as these are."""

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_ssd.budget import KNOWN_CONFIGS, ModelSize
from mlx_ssd.budget.tensors import MXFP4
from mlx_ssd.planning import calibration, measuring
from mlx_ssd.planning.stand_in import build
from mlx_ssd.recipe import Recipe
from tests.architectures import COMMON, MODELS

WIDE = {"hidden_size": 64, "intermediate_size": 128, "moe_intermediate_size": 64, "vocab_size": 256, "head_dim": 16}
FOUR, EIGHT = {"group_size": 64, "bits": 4}, {"group_size": 64, "bits": 8}
HOW = {
    "as it is": {},
    "4 bits": {"quantization": FOUR},
    "legacy": {"quantization_config": FOUR},
    "mxfp4": {"quantization": MXFP4},
    "mixed": {"quantization": FOUR | {"model.layers.1.self_attn.q_proj": EIGHT, "model.embed_tokens": False}},
    "makers' own": {"quantization_config": {"quant_method": "mxfp4"}},
}


def config_of(name, how):
    config = COMMON | MODELS[name][1]
    return config | {key: value for key, value in WIDE.items() if key in config} | HOW[how]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", ["llama", "qwen3-moe", "gpt-oss"])
def test_it_has_the_bytes_that_the_model_has(name, how):
    config = config_of(name, how) | {"layer_types": None}
    for layers in (2, 4):
        model = build({"config": config, "dtype": "float32"}, layers)  # experts in 16 bits do not compute on a CPU
        size = ModelSize.of(config | {"num_hidden_layers": layers}, "float32")
        assert sum(array.nbytes for _, array in tree_flatten(model.parameters())) == size.weight_bytes
        assert mx.isfinite(model(mx.array([[1, 2, 3]]))).all()


def test_experts_are_packed_without_ever_being_whole():
    config = config_of("gpt-oss", "makers' own") | {"layer_types": None, "num_local_experts": 128}
    config |= {"hidden_size": 512, "intermediate_size": 512}
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    model = build({"config": config, "dtype": "bfloat16"}, 2)
    held = sum(array.nbytes for _, array in tree_flatten(model.parameters()))
    whole = 128 * 512 * 512 * 4  # of one of the six matrices, as it is drawn
    assert mx.get_peak_memory() - before < held + whole / 4


def test_gpt_oss_of_its_makers_is_measured():
    """The engine and a training step, on experts in MXFP4."""
    config = config_of("gpt-oss", "makers' own") | {"vocab_size": 300}
    recipe = Recipe.load("quickstart", {"sample.rows": 2, "evaluate.rows": 2, "arms": []})
    described = {"system": "Linux", "chip": "AMD EPYC", "cores": 2, "memory_bytes": 16 * 2**30}
    work = calibration._work(recipe, config, described) | {"row_tokens": 64, "targets": ["distribution", "tokens"]}
    found = measuring.measure(work | {"layers": [2, 4], "spawned": 0.0, "rows": [1, 2]})
    assert all(point["layer"] > 0 for point in found["decoding"])
    assert all(0 < part["layer"] < 1 for part in found["training"]["tokens"].values())


def test_of_a_nested_model_the_decoder_is_measured_quantized_as_the_whole_is():
    own = KNOWN_CONFIGS["mlx-community/Qwen3-0.6B-4bit"]
    inner = {key: value for key, value in own.items() if key != "quantization"}
    outer = {"text_config": inner, "quantization": FOUR | {"language_model.model.embed_tokens": EIGHT}}
    recipe = Recipe.load("quickstart")
    work = calibration._work(recipe, outer, {"chip": "Apple M4", "memory_bytes": 16 * 2**30})
    assert work["config"]["quantization"] == FOUR | {"model.embed_tokens": EIGHT}
