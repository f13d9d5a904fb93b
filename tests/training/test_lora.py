import json

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.lora import LoRALinear
from mlx_lm.tuner.utils import load_adapters

from mlx_ssd.errors import BadInput
from mlx_ssd.training.batches import pack_rows
from mlx_ssd.training.forward import output_head
from mlx_ssd.training.lora import MixedPrecisionLoRALinear, adapter_off, adapter_weights, attach, write
from mlx_ssd.training.loss import step_gradient

from .tiny import CONFIG, Settings, make_rows, randomize_adapter, tiny_model, tiny_moe

PROBE = mx.array([[3, 1, 4, 1, 5, 9, 2, 6]])
LINEAR = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
LINEAR += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]


@pytest.mark.parametrize("bits", [None, 8, 4])
def test_attached_adapter_is_float32_everywhere_and_changes_nothing_yet(bits):
    base, model = tiny_model(bits=bits), tiny_model(bits=bits)
    attach(model, Settings())
    weights = adapter_weights(model)
    expected = {f"model.layers.{layer}.{name}.lora_{side}" for layer in (0, 1) for name in LINEAR for side in "ab"}
    assert set(weights) == expected
    assert {array.dtype for array in weights.values()} == {mx.float32}
    assert mx.array_equal(model(PROBE), base(PROBE))


def test_a_half_precision_base_keeps_float32_adapters():
    model = tiny_model()
    model.set_dtype(mx.bfloat16)
    attach(model, Settings())
    _, gradient = step_gradient(model, output_head(model), [pack_rows(make_rows(2))])
    assert {array.dtype for _, array in tree_flatten([adapter_weights(model), gradient])} == {mx.float32}
    assert model(PROBE).dtype == mx.bfloat16


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16])
def test_in_float32_and_float16_it_is_mlx_lms_layer_to_the_bit(dtype):
    ours, x, cotangent = a_layer(dtype)
    for found, expected in zip(differentiated(ours, x, cotangent), mlx_lms(ours, x, cotangent), strict=True):
        assert mx.array_equal(found, expected)


def test_in_bfloat16_it_rounds_little_more_than_mlx_lms_and_keeps_no_float32_copy():
    ours, x, cotangent = a_layer(mx.bfloat16)
    exact = differentiated(a_layer(mx.float32, of=ours)[0], x.astype(mx.float32), cotangent.astype(mx.float32))

    def errors(found):
        return [mx.square(a.astype(mx.float32) - b).mean().item() ** 0.5 for a, b in zip(found, exact, strict=True)]

    found = differentiated(ours, x, cotangent)
    assert [array.dtype for array in found] == [mx.bfloat16, mx.bfloat16, mx.float32, mx.float32]
    for own, its in zip(errors(found)[:2], errors(mlx_lms(ours, x, cotangent))[:2], strict=True):
        assert own < 1.2 * its
    for own, expected in zip(found[2:], exact[2:], strict=True):
        assert mx.abs(own - expected).max() < 0.02 * mx.abs(expected).max()

    held = {}
    for name, differentiate in (("ours", differentiated), ("mlx-lm's", mlx_lms)):
        mx.clear_cache()
        before = mx.get_active_memory()
        output, *gradients = differentiate(ours, x, cotangent)
        mx.eval(output)
        held[name] = mx.get_active_memory() - before - output.nbytes
        del output, gradients
    assert held["ours"] < 0.1 * x.nbytes < 2 * x.nbytes <= held["mlx-lm's"]


def a_layer(dtype, of=None):
    """A layer of 64 to 48 with an adapter that is not zero, 200 inputs, and a gradient of its outputs."""
    mx.random.seed(1)
    model = nn.Sequential(nn.Linear(64, 48))
    model.set_dtype(mx.bfloat16)
    model.set_dtype(dtype)
    layer = LoRALinear.from_base(model.layers[0], r=4, scale=2.0)
    layer.lora_b = 0.1 * mx.random.normal(layer.lora_b.shape)
    layer.linear.freeze()
    layer.__class__ = MixedPrecisionLoRALinear
    if of:
        layer.lora_a, layer.lora_b = of.lora_a, of.lora_b
    x, cotangent = (mx.random.normal((200, n)).astype(mx.bfloat16).astype(dtype) for n in (64, 48))
    mx.eval(layer.parameters(), x, cotangent)
    return layer, x, cotangent


def differentiated(layer, x, cotangent, call=MixedPrecisionLoRALinear.__call__):
    """The output, and the gradients of input, A and B."""

    def output(x, a, b):
        layer.lora_a, layer.lora_b = a, b
        return [call(layer, x)]

    arrays = [x, layer.lora_a, layer.lora_b]
    outputs, gradients = mx.vjp(output, arrays, [cotangent])
    _, layer.lora_a, layer.lora_b = arrays
    return [*outputs, *gradients]


def mlx_lms(layer, x, cotangent):
    return differentiated(layer, x, cotangent, LoRALinear.__call__)


def test_gradients_are_the_adapters_alone():
    model, keys = tiny_model(), ["self_attn.q_proj", "mlp.down_proj"]
    attach(model, Settings(num_layers=1, keys=keys))
    _, gradient = step_gradient(model, output_head(model), [pack_rows(make_rows(3))])
    assert {name for name, _ in tree_flatten(gradient)} == {
        f"model.layers.1.{name}.lora_{side}" for name in keys for side in "ab"
    }


def test_scale_multiplies_the_product_as_it_is():
    model = tiny_model()
    attach(model, Settings(scale=3.0))
    randomize_adapter(model)
    layer, x = model.layers[0].mlp.up_proj, mx.random.normal((5, CONFIG["hidden_size"]))
    assert mx.allclose(layer(x), layer.linear(x) + 3.0 * (x @ layer.lora_a @ layer.lora_b), atol=1e-5)


def test_init_is_a_function_of_the_seed():
    def drawn(seed, before):
        model = tiny_model()
        mx.random.seed(before)
        attach(model, Settings(seed=seed))
        return {name: np.array(array) for name, array in adapter_weights(model).items()}

    one, again, other = drawn(1, before=5), drawn(1, before=6), drawn(2, before=5)
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert all(not np.array_equal(one[name], other[name]) for name in one if name.endswith("lora_a"))
    assert not any(array.any() for name, array in one.items() if name.endswith("lora_b"))


@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("changes", [{}, {"num_layers": 1, "keys": ["self_attn.q_proj", "mlp.down_proj"]}])
def test_mlx_lm_loads_the_written_adapter(tmp_path, bits, changes):
    settings = Settings(**changes)
    model = tiny_model(bits=bits)
    attach(model, settings)
    randomize_adapter(model)
    write(model, settings, tmp_path / "adapter")

    loaded = load_adapters(tiny_model(bits=bits), str(tmp_path / "adapter"))
    assert mx.array_equal(loaded(PROBE), model(PROBE))
    adapted = {name for name, _ in tree_flatten(loaded.parameters()) if ".lora_" in name}
    assert adapted == set(adapter_weights(model))
    assert not mx.allclose(loaded(PROBE), tiny_model(bits=bits)(PROBE), atol=0.1)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "adapter",
        "adapter_config.json",
        "adapters.safetensors",
    ]


def test_mlx_lm_load_takes_model_and_adapter_folders(tmp_path):
    from mlx_lm.utils import load
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps(CONFIG))
    mx.save_safetensors(str(base / "model.safetensors"), dict(tree_flatten(tiny_model().parameters())))
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<eos>": 1}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", unk_token="<unk>")
    tokenizer.save_pretrained(base)

    model = tiny_model()
    attach(model, Settings())
    randomize_adapter(model)
    write(model, Settings(), tmp_path / "adapter")
    loaded, _ = load(str(base), adapter_path=str(tmp_path / "adapter"))
    assert mx.array_equal(loaded(PROBE), model(PROBE))


@pytest.mark.parametrize("keys, word", [(["self_attn.qproj"], "self_attn.qproj"), (["mlp"], "MLP")])
def test_keys_that_fit_no_linear_layer_are_refused(keys, word):
    with pytest.raises(BadInput, match=word):
        attach(tiny_model(), Settings(keys=keys))


def test_a_second_adapter_is_refused():
    model = tiny_model()
    attach(model, Settings())
    with pytest.raises(BadInput, match="adapter already"):
        attach(model, Settings())


HEAD_AND_EMBEDDING = ["lm_head", "model.embed_tokens", "self_attn.q_proj", "mlp.down_proj"]
MODELS = {
    "dense": (tiny_model, Settings(dropout=0.5)),
    "4 bit": (lambda: tiny_model(bits=4), Settings(dropout=0.5)),
    "experts": (tiny_moe, Settings(dropout=0.5)),
    "the last layer": (tiny_model, Settings(dropout=0.5, num_layers=1)),
    "head and embedding": (lambda: tiny_model(tied=False), Settings(dropout=0.5, keys=HEAD_AND_EMBEDDING)),
    "tied embedding": (tiny_model, Settings(dropout=0.5, keys=["model.embed_tokens"])),
}


@pytest.mark.parametrize("build, settings", MODELS.values(), ids=MODELS.keys())
def test_with_the_adapter_off_the_model_is_its_base_bit_for_bit(build, settings):
    bare = build().eval()
    head, states = output_head(bare).of(bare), bare.model(PROBE)
    model = build()
    attach(model, settings)
    randomize_adapter(model)
    late_head = output_head(model.eval())
    model.train()
    mx.random.seed(1)
    on, after = model(PROBE), mx.random.uniform(shape=(3,))
    assert mx.abs(on - bare(PROBE)).max() > 0.1, "the adapter does something"

    mx.random.seed(1)
    with adapter_off(model):
        assert not model.training and not model.layers[0].training
        assert mx.array_equal(model(PROBE), bare(PROBE))
        assert mx.array_equal(model.model(PROBE), states)
        assert mx.array_equal(late_head.of(model)(model.model(PROBE)), head(states))
    assert model.training and len(adapter_weights(model)) > 0
    assert mx.array_equal(model(PROBE), on), "on again, and no random number was drawn by dropout meanwhile"
    assert mx.array_equal(mx.random.uniform(shape=(3,)), after)


def test_the_adapter_is_on_again_after_an_exception():
    model = tiny_model()
    attach(model, Settings())
    randomize_adapter(model)
    model.eval()
    before, weights = model(PROBE), set(adapter_weights(model))
    with pytest.raises(KeyboardInterrupt):
        with adapter_off(model):
            raise KeyboardInterrupt
    assert mx.array_equal(model(PROBE), before)
    assert set(adapter_weights(model)) == weights and not model.training


def test_experts_wear_adapters_only_when_asked(tmp_path):
    plain, with_experts = tiny_moe(), tiny_moe()
    attach(plain, Settings(experts=False))
    attach(with_experts, Settings(experts=True))
    names, more = set(adapter_weights(plain)), set(adapter_weights(with_experts))
    assert names < more and all("switch_mlp" in name for name in more - names)
    assert not any("switch_mlp" in name for name in names)
    randomize_adapter(plain)
    write(plain, Settings(experts=False), tmp_path / "adapter")
    loaded = load_adapters(tiny_moe(), str(tmp_path / "adapter"))
    assert mx.array_equal(loaded(PROBE), plain.eval()(PROBE))
