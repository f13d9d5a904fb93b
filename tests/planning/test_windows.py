"""A model whose layers are of two kinds is measured in pairs of them."""

import mlx.core as mx

from mlx_ssd.budget import KNOWN_CONFIGS, ModelSize
from mlx_ssd.planning.calibration import OF_LAYERS, _depths
from mlx_ssd.planning.stand_in import build
from tests.architectures import COMMON, MODELS


def test_depths_are_even():
    mac = {"chip": "Apple M4", "system": "macOS"}
    windowed, (few, _) = (
        _depths(ModelSize.of(KNOWN_CONFIGS[f"mlx-community/{name}"]), mac)
        for name in ("gpt-oss-20b-MXFP4-Q8", "Qwen3-4B-Instruct-2507-4bit")
    )
    assert windowed[0] == 2 and windowed[1] % 2 == 0 and few >= 1
    few, deep = _depths(ModelSize.of(KNOWN_CONFIGS["openai/gpt-oss-20b"]), {"chip": "EPYC", "system": "Linux"})
    assert few == 2 and deep % 2 == 0 and deep > few


def test_so_many_layers_of_gpt_oss_are_built():
    config = {key: value for key, value in (COMMON | MODELS["gpt-oss"][1]).items() if key not in OF_LAYERS}
    for layers in (2, 4):
        model = build({"config": config, "dtype": "float32"}, layers)
        assert len(model.layers) == len(model.make_cache()) == layers
        assert model(mx.array([[1, 2, 3]])).shape == (1, 3, 200)
