"""Trained experts of a base as its makers published it, whose files hold them otherwise than mlx-lm names them."""

import json
import shutil

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_ssd import models
from mlx_ssd.errors import BadInput
from mlx_ssd.export import fused, mlx
from mlx_ssd.export.__main__ import make
from mlx_ssd.export.source import source_of
from mlx_ssd.training import lora
from mlx_ssd.weights import AdaptedWeights
from tests.export.conftest import make_run
from tests.families import hub_layout
from tests.training.tiny import Settings, randomize_adapter


@pytest.fixture(scope="module", params=["qwen3-moe", "gpt-oss"])
def run(request, tmp_path_factory):
    """A run whose student has adapters on all linear layers, experts too."""
    here = tmp_path_factory.mktemp("published")
    base = hub_layout(here / "base", request.param)
    folder = make_run(here / "run", base, keys=["self_attn.q_proj"])
    adapter = folder / "round-1/adapter"
    shutil.rmtree(adapter)
    model, _ = models.load(models.ModelSource(base, ""), "float32")
    lora.attach(model, Settings(experts=True))
    randomize_adapter(model, 0.1)
    lora.write(model, Settings(experts=True), adapter)
    return folder


def test_stacks_are_what_mlx_lm_makes_of_the_files(run):
    source = source_of(run)
    weights = AdaptedWeights(source.base.path, source.adapter)
    stacked = [name for name in weights.changed if ".experts." in name or ".switch_mlp." in name]
    assert len(stacked) == 2 * 3 and not set(stacked) & set(weights.names)
    base, student = (fused.whole_student(source) for _ in range(2))
    base = mlx_lm.utils.dequantize_model(mlx_lm.load(str(source.base.path))[0])
    held, expected = (dict(tree_flatten(model.parameters())) for model in (base, student))
    mx.eval(held, expected)
    before = mx.get_active_memory()
    for name in weights.changed:
        assert weights.shape(name) == held[name].shape
        np.testing.assert_array_equal(weights.read_base(name), np.array(held[name].astype(mx.float32)), err_msg=name)
        np.testing.assert_allclose(weights.read(name), np.array(expected[name]), rtol=0, atol=2e-6, err_msg=name)
    assert mx.get_active_memory() - before < 1000


@pytest.mark.parametrize("precision", ["base", "bfloat16"])
def test_the_whole_model_is_written_and_verified(run, precision):
    source = source_of(run)
    make(source, "mlx", precision)
    [file] = source.exports.glob(f"mlx{'' if precision == 'base' else '-bfloat16'}/verify.json")
    facts = json.loads(file.read_text())
    assert facts["verdict"] == "pass" and len(facts["kept"]["layers"]) == 2
    assert all(row["share"] > 0.5 for row in facts["kept"]["layers"])


def test_what_mlx_lm_makes_otherwise_is_refused_before_anything_is_written(run, monkeypatch):
    """As if it put a plain layer of other tensors together too."""
    source = source_of(run)
    file = source.base.path / "model.safetensors"
    kept = file.read_bytes()
    arrays = mx.load(str(file))
    arrays["model.layers.0.self_attn.q_proj.stored_otherwise"] = arrays.pop("model.layers.0.self_attn.q_proj.weight")
    module = type(models.load(source.base)[0])
    plain = module.sanitize

    def sanitize(model, weights):
        return plain(model, {name.replace(".stored_otherwise", ".weight"): a for name, a in weights.items()})

    monkeypatch.setattr(module, "sanitize", sanitize)
    mx.eval(arrays)
    mx.save_safetensors(str(file), arrays)
    try:
        with pytest.raises(BadInput, match="which mlx-lm makes of other tensors of .*; take --target adapter, or"):
            mlx.write(source, source.exports / "none", "base", lambda done, total: pytest.fail("it was begun"))
    finally:
        file.write_bytes(kept)
