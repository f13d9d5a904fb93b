"""What config.json says of a model's size, against its card and by hand."""

import pytest

from mlx_ssd.budget import KNOWN_CONFIGS, ModelSize
from mlx_ssd.errors import BadInput

QWEN = KNOWN_CONFIGS["mlx-community/Qwen3-4B-Instruct-2507-4bit"]


def test_qwen3_4b():
    size = ModelSize.of(QWEN)
    assert size.parameters == 4_022_468_096  # the card says 4.0 billion, 3.6 without the embedding
    assert size.weight_bytes == pytest.approx(2_263_022_417, rel=1e-4)  # the published model.safetensors
    assert size.kv_bytes == 36 * 2 * 8 * 128 * 2 == 147_456
    assert size.flops(0) == 2 * (size.parameters - 36 * (2 * 2560 + 2 * 128) - 2560)  # norms aside
    assert size.flops(1000) - size.flops(0) == 4 * 36 * 32 * 128 * 1000


def test_bits():
    plain = {key: value for key, value in QWEN.items() if key != "quantization"}
    parameters = ModelSize.of(QWEN).parameters
    assert ModelSize.of(plain).weight_bytes == 2 * parameters
    assert ModelSize.of(plain | {"torch_dtype": "float32"}).weight_bytes == 4 * parameters
    eight = plain | {"quantization": {"bits": 8, "group_size": 32}}
    assert ModelSize.of(eight).weight_bytes == pytest.approx(9 * parameters / 8, rel=1e-4)  # norms have 16


def test_mixture_of_experts():
    """Qwen3-30B-A3B: 30.5 billion parameters, 3.3 of them active, says its card."""
    config = QWEN | {
        "hidden_size": 2048, "num_hidden_layers": 48, "num_key_value_heads": 4, "intermediate_size": 6144,
        "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8, "tie_word_embeddings": False,
    }  # fmt: skip
    size = ModelSize.of(config)
    assert size.parameters == pytest.approx(30.5e9, rel=0.01)
    assert size.active == pytest.approx(3.3e9, rel=0.1)
    one, many, all_ = size.read_bytes(1), size.read_bytes(64), size.weight_bytes - size.looked_up_bytes
    assert one == pytest.approx(all_ - size.expert_bytes * 120 / 128)
    assert one < all_ / 5 and all_ * 0.98 < many < all_


def test_dense_reads_everything_each_step_but_an_embedding_that_is_only_looked_up():
    """In 4 bits and groups of 64 a number takes 4.5 bits; one that is the head too is read whole."""
    size = ModelSize.of(QWEN)
    assert size.read_bytes(1) == size.read_bytes(64) == size.weight_bytes
    untied = ModelSize.of(QWEN | {"tie_word_embeddings": False})
    assert untied.weight_bytes - size.weight_bytes == 151_936 * 2560 * 4.5 / 8
    assert untied.read_bytes(1) == untied.read_bytes(64) == size.weight_bytes


def test_nested_and_unusual_configs():
    assert ModelSize.of({"model_type": "x", "text_config": QWEN}) == ModelSize.of(QWEN)
    with pytest.raises(BadInput, match=r"no 'hidden_size'; give problems\.train\.limit"):
        ModelSize.of({"num_hidden_layers": 2})
