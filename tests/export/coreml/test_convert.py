"""Conversions of a model with random weights, against the model itself."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("coremltools")

from mlx_ssd.errors import BadInput  # noqa: E402
from mlx_ssd.export.coreml import convert  # noqa: E402
from mlx_ssd.export.coreml.interpreter import Interpreter  # noqa: E402
from mlx_ssd.torch_ref import qwen3  # noqa: E402
from mlx_ssd.torch_ref.qwen3_config import Qwen3Config  # noqa: E402

# More tokens than 16 bits can name, heads that share nothing, biases, and a head that is not the embedding.
WIDE = Qwen3Config(
    layers=1, hidden=32, intermediate=32, heads=2, kv_heads=2, head_dim=16, vocabulary=70_000, eps=1e-6,
    rope_theta=1e4, attention_bias=True, tied=False, max_positions=24,
)  # fmt: skip
CONTEXT = 24
IDS = torch.tensor([[3, 69_999, 65_536, 4_463, 65_539, 3, 65_541, 11]])
MODULE = "model.layers.0.self_attn.q_proj"


def twin(factors=None):
    draw = np.random.default_rng(0)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in qwen3.Qwen3(WIDE, CONTEXT).state_dict().items()}
    weights = {
        name: (0.3 * draw.normal(size=shape) + ("norm" in name)).astype(np.float16) for name, shape in shapes.items()
    }
    return [
        qwen3.build(WIDE, CONTEXT, weights, weights.__getitem__, dtype, factors)
        for dtype in (torch.float16, torch.float32)
    ]


FACTORS = {
    MODULE: (
        np.random.default_rng(1).normal(size=(32, 2)).astype(np.float16),
        np.random.default_rng(2).normal(size=(2, 32)).astype(np.float16),
        0.5,
    )
}


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    place = tmp_path_factory.mktemp("wide")
    half, reference = twin()
    convert.convert(half, place / "plain.mlpackage")
    with_adapter, adapted = twin(FACTORS)
    convert.convert(with_adapter, place / "adapted.mlpackage")
    parts = {"base": place / "plain.mlpackage", "student": place / "adapted.mlpackage"}
    convert.combine(parts, "student", place / "both.mlpackage")
    return place, reference, adapted


def logits_of(model, steps, masked=qwen3.MASKED):
    found, end = [], 0
    for count in steps:
        end += count
        mask = torch.where(qwen3.causal_mask(count, end) == 0, 0.0, masked)
        found.append(model(IDS[:, end - count : end], mask)[0].float())
    return torch.cat(found)


def interpreted(package, function=None, dtype=torch.float32):
    model = Interpreter(package, function, dtype)
    return lambda ids, mask: model({"inputIds": ids.int(), "fullAttentionMask": mask})["logits"]


def in_torch(model):
    caches = model.empty_caches()
    return torch.no_grad()(lambda ids, mask: model(ids, mask, *caches))


@pytest.mark.parametrize("steps", [[8], [5, 1, 1, 1], [2, 3, 3]])
def test_equals_the_model_in_any_steps_and_for_ids_over_16_bits(converted, steps):
    place, reference, _ = converted
    expected = logits_of(in_torch(reference), [8])
    assert (expected[1] - expected[3]).abs().max() > 1  # 69,999 is 4,463 in 16 bits
    found = logits_of(interpreted(place / "plain.mlpackage"), steps)
    assert torch.allclose(found, expected, rtol=0, atol=0.01)  # the tables of the rotary embedding are in float16
    half = logits_of(interpreted(place / "plain.mlpackage", dtype=torch.float16), steps)
    assert torch.allclose(half, expected, rtol=0, atol=0.05)


def test_functions_are_the_base_and_the_student(converted):
    place, reference, adapted = converted
    base, student = (logits_of(in_torch(model), [8]) for model in (reference, adapted))
    assert (base - student).abs().max() > 0.2
    both = place / "both.mlpackage"
    assert torch.allclose(logits_of(interpreted(both, "base"), [6, 1, 1]), base, rtol=0, atol=0.01)
    assert torch.allclose(logits_of(interpreted(both, "student"), [6, 1, 1]), student, rtol=0, atol=0.01)
    assert torch.equal(logits_of(interpreted(both), [8]), logits_of(interpreted(both, "student"), [8]))


def test_a_mask_of_swift_transformers_will_do(converted):
    """It masks by the least float16."""
    place, reference, _ = converted
    found = logits_of(interpreted(place / "plain.mlpackage", dtype=torch.float16), [8], masked=-65504.0)
    assert torch.allclose(found, logits_of(in_torch(reference), [8]), rtol=0, atol=0.05)


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_wrong_offset_is_seen(converted, shift):
    """Were tokens written one slot off, as an `end` that is one off would do, the answer would be another."""
    place, reference, _ = converted
    model = interpreted(place / "plain.mlpackage")
    model(IDS[:, :5], qwen3.causal_mask(5, 5))
    found = model(IDS[:, 5:6], qwen3.causal_mask(1, 6 + shift))[0].float()
    assert (found - logits_of(in_torch(reference), [8])[5]).abs().max() > 0.1


def test_past_the_context_there_is_no_place(converted):
    place, _, _ = converted
    model = interpreted(place / "plain.mlpackage")
    model(IDS[:, :1], qwen3.causal_mask(1, CONTEXT))
    with pytest.raises((BadInput, RuntimeError)):
        model(IDS[:, :1], qwen3.causal_mask(1, CONTEXT + 1))


def test_converting_is_silent(converted, tmp_path, capfd, caplog):
    half, _ = twin()
    convert.convert(half, tmp_path / "again.mlpackage")
    assert "Converting PyTorch" not in capfd.readouterr().err
    assert not [record for record in caplog.records if record.name == "coremltools"]
