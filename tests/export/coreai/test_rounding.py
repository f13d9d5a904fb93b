"""The independent rounding against what Core AI's own package makes of the same weights, bit for bit."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("coreai_opt")

from mlx_ssd.export.coreai import convert, rounding  # noqa: E402
from mlx_ssd.torch_ref import qwen3  # noqa: E402
from mlx_ssd.torch_ref.qwen3_config import Qwen3Config  # noqa: E402

CONFIG = Qwen3Config(
    layers=1, hidden=64, intermediate=96, heads=2, kv_heads=1, head_dim=32, vocabulary=40, eps=1e-6, rope_theta=1e4,
    attention_bias=False, tied=True, max_positions=64,
)  # fmt: skip


def test_int4_is_that_of_the_package():
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in qwen3.Qwen3(CONFIG, 8).state_dict().items()}
    del shapes["lm_head.weight"]
    draw = np.random.default_rng(0)
    weights = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    weights["model.embed_tokens.weight"][3] = 0  # a block of zeros has a scale too
    weights["model.embed_tokens.weight"][4] *= 1e-5
    function = convert.in_int4(qwen3.build(CONFIG, 8, weights, weights.__getitem__, torch.float16))
    for name, array in weights.items():
        owner, _, leaf = name.rpartition(".")
        found = getattr(function.model.get_submodule(owner), leaf).detach().float().numpy()
        expected = rounding.int4(array) if array.ndim == 2 else rounding.half(array)
        assert np.array_equal(found, expected), name


def test_int4_has_fifteen_values_a_block_and_keeps_the_largest():
    array = np.random.default_rng(1).normal(size=(8, 96)).astype(np.float32)
    blocks, rounded = array.reshape(8, 3, 32), rounding.int4(array).reshape(8, 3, 32)
    scales = np.abs(blocks).max(-1) / 7
    assert all(len(np.unique(block)) <= 15 for block in rounded.reshape(-1, 32))
    assert np.abs(rounded - blocks).max() <= 0.502 * scales.max()
    assert np.allclose(np.abs(rounded).max(-1), np.abs(blocks).max(-1), rtol=2e-3)
