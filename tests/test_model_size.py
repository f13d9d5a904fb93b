"""What config.json says of a model's size, against its card and by hand."""

import pytest

from mlx_ssd.budget import KNOWN_CONFIGS, ModelSize, UnusualModel

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


class TestNested:
    """A model with parts beside the decoder, whose own config is in text_config."""

    PLAIN = {key: value for key, value in QWEN.items() if key != "quantization"}

    def test_as_the_decoder_alone(self):
        assert ModelSize.of({"model_type": "x", "text_config": QWEN}) == ModelSize.of(QWEN)

    @pytest.mark.parametrize("key", ["quantization", "quantization_config"])
    def test_quantized_as_the_whole_is(self, key):
        """mlx-lm writes it at the top, with the modules' paths in the whole model."""
        module = "model.layers.3.mlp.down_proj"
        how = QWEN["quantization"] | {module: {"group_size": 64, "bits": 8}}
        outer = QWEN["quantization"] | {f"language_model.{module}": {"group_size": 64, "bits": 8}}
        alone, four = ModelSize.of(self.PLAIN | {"quantization": how}), ModelSize.of(QWEN)
        assert ModelSize.of({"text_config": self.PLAIN, key: outer}) == alone
        assert alone.weight_bytes - four.weight_bytes == 2560 * 9728 / 2
        assert ModelSize.of({"text_config": QWEN, key: {"group_size": 64, "bits": 8}}).weight_bytes > 1.8 * 2.26e9

    def test_stored_as_the_whole_is_where_it_does_not_say(self):
        half = {"torch_dtype": "float16"}
        assert ModelSize.of({"text_config": self.PLAIN} | half).dtype == "float16"
        assert ModelSize.of({"text_config": self.PLAIN | {"dtype": "float32"}} | half).dtype == "float32"


ODD = [
    ({"hidden_size": None}, "hidden_size of the model's config.json is None, where a whole number above 0"),
    ({"intermediate_size": [9728] * 36}, r"intermediate_size .* is \[9728, 9728, .*\.\.\.\], where"),
    ({"intermediate_size": "9728"}, "is '9728'"),
    ({"num_hidden_layers": 36.5}, "is 36.5"),
    ({"num_hidden_layers": True}, "is True"),
    ({"num_attention_heads": 0}, "num_attention_heads .* is 0"),
    ({"num_attention_heads": 4096, "head_dim": None}, "more than its hidden_size"),
    ({"num_key_value_heads": [8, 4]}, "num_key_value_heads"),
    ({"vocab_size": -1}, "vocab_size"),
    ({"head_dim": -128}, "head_dim"),
    ({"num_experts": 8, "num_experts_per_tok": "2"}, "num_experts_per_tok"),
    ({"sliding_window": "4096", "layer_types": ["sliding_attention"]}, "sliding_window"),
    ({"sliding_window": 4096, "sliding_window_pattern": "LLLG"}, "sliding_window_pattern"),
    ({"sliding_window": 4096, "layer_types": "full_attention"}, "layer_types"),
    ({"quantization": "4bit"}, "quantization of .* is '4bit', where an object is wanted"),
    ({"quantization": {"bits": 4}}, "group_size of the quantization"),
    ({"quantization": {"bits": "4", "group_size": 64}}, "bits of the quantization"),
    ({"quantization": {"bits": 4, "group_size": -1}}, "group_size of the quantization"),
    ({"quantization": {"bits": 4, "group_size": 64, "model.embed_tokens": {"bits": 8}}}, "group_size"),
    ({"text_config": "none"}, "text_config of the model's config.json is 'none', where an object is wanted"),
]


@pytest.mark.parametrize("changed, said", ODD, ids=[str(sorted(changed)) for changed, _ in ODD])
def test_what_no_size_can_be_computed_of_is_said(changed, said):
    with pytest.raises(UnusualModel, match=said) as error:
        ModelSize.of(QWEN | changed)
    assert len(str(error.value)) < 200


def test_what_is_missing_is_said():
    with pytest.raises(UnusualModel, match="the model's config.json has no 'hidden_size'"):
        ModelSize.of({"num_hidden_layers": 2})
    for config in ([], ["a"], "a", 4):
        with pytest.raises(UnusualModel, match="where an object is wanted"):
            ModelSize.of(config)


def test_what_is_not_used_may_be_odd():
    unused = {"torch_dtype": ["bfloat16"], "sliding_window": -1, "num_experts": None, "moe_intermediate_size": 0}
    assert ModelSize.of(QWEN | unused) == ModelSize.of(QWEN)
