"""Full fine-tuning."""

import json

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import load_adapters

from mlx_ssd.errors import BadInput
from mlx_ssd.training.full import attach
from mlx_ssd.training.loop import train

from .tiny import Settings, make_rows, tiny_model

PROBE = mx.array([[3, 1, 4, 1, 5, 9, 2, 6]])
ROWS = make_rows(10)


def parameters(model):
    return dict(tree_flatten(model.parameters()))


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize("num_layers", [-1, 1])
def test_mlx_lm_loads_what_was_trained(tmp_path, dtype, num_layers):
    base, model = tiny_model(), tiny_model()
    base.set_dtype(dtype)
    model.set_dtype(dtype)
    train(model, ROWS, Settings(method="full", num_layers=num_layers, epochs=1), tmp_path, {})
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config == {"fine_tune_type": "full", "num_layers": num_layers}
    saved = mx.load(str(tmp_path / "adapter" / "adapters.safetensors"))
    assert {array.dtype for array in saved.values()} == {dtype}
    moved = {name for name in saved if not mx.array_equal(saved[name], parameters(base)[name])}
    everything = set(parameters(base))
    if num_layers < 0:
        assert moved == set(saved) == everything
    else:
        assert moved == set(saved) == {name for name in everything if name.startswith("model.layers.1.")}
    loaded = load_adapters(base, str(tmp_path / "adapter"))
    tolerance = 1e-6 if dtype == mx.float32 else 0.05
    difference = mx.abs(loaded(PROBE).astype(mx.float32) - model(PROBE).astype(mx.float32)).max()
    assert difference < tolerance * mx.abs(model(PROBE)).max()


def test_small_updates_of_bfloat16_weights_are_not_rounded_away(tmp_path):
    """At the paper's learning rate each step moves a weight by less than half a bfloat16 step of it."""
    settings = Settings(method="full", learning_rate=5e-6, epochs=20, warmup_fraction=0, final_fraction=1)
    model = tiny_model()
    model.set_dtype(mx.bfloat16)
    before = parameters(model)["model.layers.0.mlp.up_proj.weight"].astype(mx.float32)
    train(model, ROWS, settings, tmp_path, {})
    after = parameters(model)["model.layers.0.mlp.up_proj.weight"]
    assert after.dtype == mx.float32
    assert mx.abs(after - before).max() > 10 * 5e-6


def test_quantized_weights_are_refused():
    with pytest.raises(BadInput, match="train.method full needs weights that are not quantized.*method lora"):
        attach(tiny_model(bits=4), Settings())
