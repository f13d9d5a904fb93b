"""The models that are measured are those that the row names."""

from pathlib import Path

import mlx.core as mx
import pytest

from mlx_ssd.bench.configurations import in_bits, subjects_of
from mlx_ssd.bench.subject import facts_of, load, timed_loads
from tests.export.conftest import make_base

PARAMETERS = 877_952  # of the embedded model, by its README
IDS = mx.array([[1, 300, 17, 42, 5]])


def logits(subject):
    model, _ = load(subject)
    return model(IDS)


def largest(a, b):
    return mx.abs(a - b).max().item()


def test_the_fused_adapter_computes_what_the_adapter_beside_the_weights_does(run):
    off, on, fused = map(logits, subjects_of(str(run)))
    assert largest(on, fused) < 1e-3
    assert largest(on, off) > 0.1


def test_a_fused_model_has_no_adapter_left(run):
    model, _ = load(subjects_of(str(run))[2])
    assert facts_of(model, model_folder(run))["parameters"] == PARAMETERS
    beside, _ = load(subjects_of(str(run))[1])
    assert facts_of(beside, model_folder(run))["parameters"] > PARAMETERS


def model_folder(run):
    return Path(subjects_of(str(run))[0].folder)


@pytest.mark.parametrize("way", [0, 1, 2])
def test_bits_are_what_is_held(run, way):
    whole, four = subjects_of(str(run))[way], in_bits(subjects_of(str(run))[way], 4)
    held = [facts_of(load(subject)[0], model_folder(run)) for subject in (whole, four)]
    assert [facts["bits"] for facts in held] == [32, 4]
    assert [facts["dtype"] for facts in held] == ["float32", "float32"]
    assert held[0]["parameters"] == held[1]["parameters"]
    assert 0 < largest(logits(whole), logits(four)) < 20
    if way != 1:  # the adapter stays in float32
        assert held[1]["weight_bytes"] < held[0]["weight_bytes"] / 6
        assert held[0]["weight_bytes"] == 4 * PARAMETERS


def test_quantized_in_memory_is_quantized_by_mlx_lm(tmp_path):
    (whole,) = subjects_of("embedded")
    (stored,) = subjects_of(str(make_base(tmp_path / "eight", bits=8)))
    assert largest(logits(in_bits(whole, 8)), logits(stored)) < 1e-4


def test_sixteen_bits_are_bfloat16():
    sixteen = in_bits(subjects_of("embedded")[0], 16)
    facts = facts_of(load(sixteen)[0], Path(sixteen.folder))
    assert (facts["bits"], facts["dtype"], facts["quantized"]) == (16, "bfloat16", False)


def test_each_load_is_timed():
    _, _, seconds = timed_loads(subjects_of("embedded")[0], 3)
    assert len(seconds) == 3 and min(seconds) > 0
