"""Bytes that config.json foretells, against tiny models of the same architectures, counted as mlx-lm holds them."""

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache
from mlx_lm.utils import quantize_model

from mlx_ssd.budget import KNOWN_CONFIGS, ModelSize
from mlx_ssd.budget.decoding import Work, decoding_parts
from mlx_ssd.budget.model_size import windows
from mlx_ssd.budget.tensors import MXFP4, matrices
from mlx_ssd.sampling.memory import token_bytes, window_bytes
from tests.architectures import COMMON, MODELS

FAMILIES = ("llama", "qwen3", "qwen3-moe", "gpt-oss")
WIDE = {"hidden_size": 64, "intermediate_size": 128, "moe_intermediate_size": 64, "vocab_size": 256}  # groups of 64
EIGHT = {"group_size": 64, "bits": 8}


def config_of(name, **changed):
    return COMMON | MODELS[name][1] | {k: v for k, v in WIDE.items() if k in COMMON | MODELS[name][1]} | changed


def model_of(name, config):
    module = MODELS[name][0]
    model = module.Model(module.ModelArgs.from_dict(config))
    model.set_dtype(mx.bfloat16)
    return model


def mxfp4_experts(path, module):
    """As mlx-community's MXFP4-Q8 of gpt-oss."""
    return MXFP4 if ".experts." in path else EIGHT


def held(model):
    return sum(array.nbytes for _, array in tree_flatten(model.parameters()))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("bits, mode", [(None, ""), (4, "affine"), (8, "affine"), (4, "mxfp4")])
def test_weights(name, bits, mode):
    config = config_of(name)
    model = model_of(name, config)
    if bits:
        group = {"affine": 64, "mxfp4": 32}[mode]
        # A family's own choices included: a mixture's router has 8 bits.
        own = None if mode == "affine" else lambda path, module: True
        model, config = quantize_model(model, config, group, bits, mode=mode, quant_predicate=own)
    size = ModelSize.of(config)
    assert size.weight_bytes == held(model)
    if not bits:
        assert size.parameters == sum(array.size for _, array in tree_flatten(model.parameters()))
        model.set_dtype(mx.float32)
        assert ModelSize.of(config, "float32").weight_bytes == held(model)


def test_mixed_precision():
    config = config_of("gpt-oss")
    model, config = quantize_model(model_of("gpt-oss", config), config, 32, 4, "mxfp4", quant_predicate=mxfp4_experts)
    size = ModelSize.of(config)
    assert size.weight_bytes == held(model)
    experts = [layer.mlp.experts for layer in model.layers]
    assert size.expert_bytes == sum(held(module) for module in experts)
    assert size.expert_share == 2 / 8


def test_its_makers_own_gpt_oss_has_experts_in_mxfp4_and_the_rest_in_16_bits():
    config = config_of("gpt-oss")
    model, _ = quantize_model(
        model_of("gpt-oss", config), config, 32, 4, "mxfp4", quant_predicate=lambda path, _: ".experts." in path
    )
    assert ModelSize.of(config | {"quantization_config": {"quant_method": "mxfp4"}}).weight_bytes == held(model)


@pytest.mark.parametrize("name", FAMILIES)
def test_matrices_are_the_models_own(name):
    """Paths too: what a folder says of one module is found."""
    config = config_of(name)
    model = model_of(name, config)
    there = {path.removesuffix(".weight"): array for path, array in tree_flatten(model.parameters()) if array.ndim > 1}
    there = {path: array for path, array in there.items() if not path.endswith(".bias")}
    described = {m.path: (m.count, m.rows, m.columns) for m in matrices(config)}
    assert described == {path: (array.shape if array.ndim == 3 else (1, *array.shape)) for path, array in there.items()}


@pytest.mark.parametrize("name", [*FAMILIES, "gemma3"])
def test_keys_and_values_of_a_row(name):
    """Layers with a window hold no more than it; the others hold every token."""
    config = config_of(name)
    model, size = model_of(name, config), ModelSize.of(config_of(name), "bfloat16")
    caches = make_prompt_cache(model)
    tokens = 100
    for _ in range(tokens):
        model(mx.zeros((1, 1), dtype=mx.int32), cache=caches)
    growing = sum(c.nbytes * tokens // c.keys.shape[2] for c in caches if type(c) is KVCache)
    bounded = sum(c.nbytes for c in caches if type(c) is RotatingKVCache)
    assert (growing, bounded) == (tokens * size.kv_bytes, size.window_bytes)
    assert (size.window_bytes > 0) == (name in ("gpt-oss", "gemma3"))
    assert token_bytes(model, grouped=False) == size.kv_bytes and window_bytes(model) == size.window_bytes


def test_rows_with_windows_are_all_as_long_as_the_longest():
    """mlx-lm's own caches hold them (sampling/plain.py)."""
    size, work = ModelSize.of(KNOWN_CONFIGS["mlx-community/gpt-oss-20b-MXFP4-Q8"]), Work(500, 1500, 1000, 8000)
    one, nine = (decoding_parts(size, rows, work, 64e9, True)["kv"] for rows in (1, 9))
    assert nine == 9 * one == 9 * (12_288 * 24_576 + 12 * 128 * 2_048)


def test_windows_are_read_off_the_config():
    assert windows({"num_hidden_layers": 4, "sliding_window": 9, "model_type": "gpt_oss"}) == (2, 9)
    assert windows({"num_hidden_layers": 6, "sliding_window": 9, "sliding_window_pattern": 6}) == (5, 9)
    kinds = ["full_attention", "sliding_attention", "sliding_attention"]
    assert windows({"num_hidden_layers": 3, "sliding_window": 9, "layer_types": kinds}) == (2, 9)
    # Qwen's config names one that it does not use; mlx-lm's Llama ignores one without kinds of layers.
    assert windows({"num_hidden_layers": 3, "sliding_window": 9, "layer_types": kinds[:1] * 3}) == (0, 0)
    assert windows({"num_hidden_layers": 3, "sliding_window": 9}) == windows({"num_hidden_layers": 3}) == (0, 0)


# Total bytes of the safetensors on the hub, and parameters, as their pages and cards say.
PUBLISHED = {
    "mlx-community/gpt-oss-20b-MXFP4-Q8": (12_104_215_835 - 27_900_000, 20.9),  # the whole folder, tokenizer aside
    "openai/gpt-oss-20b": (13.76e9, 20.9),
    "mlx-community/Qwen3-30B-A3B-Thinking-2507-4bit": (17.18e9, 30.5),
    "mlx-community/Meta-Llama-3.1-8B-Instruct-4bit": (4.52e9, 8.03),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_known_models_against_what_is_published(name):
    size, (weights, billions) = ModelSize.of(KNOWN_CONFIGS[name]), PUBLISHED[name]
    assert size.weight_bytes == pytest.approx(weights, rel=1e-3)
    assert round(size.parameters / 1e9, 1 if billions > 10 else 2) == billions
