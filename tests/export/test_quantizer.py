"""The update-preserving quantizer: its parts against their definitions, and the whole on the embedded model."""

import json
import shutil

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from mlx_ssd import assets, models
from mlx_ssd.errors import BadInput
from mlx_ssd.export import mlx, quantizer
from mlx_ssd.export.compare import compare
from mlx_ssd.export.quantizer import distilling, rounding
from mlx_ssd.export.quantizer.distilling import Tuned
from mlx_ssd.export.quantizer.fitted import calibration, fitted
from mlx_ssd.export.quantizer.grid import Grid, pack, unpack
from mlx_ssd.export.reference import BASE, STUDENT, MlxReader, reference_of
from mlx_ssd.export.source import source_of
from mlx_ssd.export.verify import verify
from mlx_ssd.models import ModelSource
from mlx_ssd.records import Generation, Sample
from mlx_ssd.storage import Journal, write_records
from mlx_ssd.training.batches import micro_batches
from mlx_ssd.training.forward import output_head
from tests.training.tiny import Row, make_rows, tiny_model

PROMPT = [1, 347, 203, 328]


def silent(done, total):
    pass


def linear(out=6, width=64, bits=4, dtype=mx.float32, seed=0):
    weight = mx.array(np.random.default_rng(seed).normal(size=(out, width)).astype(np.float32)).astype(dtype)
    plain = nn.Linear(width, out, bias=False)
    plain.weight = weight
    return plain.to_quantized(group_size=32, bits=bits)


def moment_of(width, rank, seed=1):
    """X^T X of inputs that are nearly of `rank` dimensions."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(200, rank)) @ draw.normal(size=(rank, width)) + 0.05 * draw.normal(size=(200, width))
    return (x.T @ x).astype(np.float32)


def nearest(target, grid):
    return np.clip(np.rint((target - grid.biases[:, :1]) / grid.scales[:, :1]), 0, grid.highest)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_integers_are_packed_as_mlx_packs_them(bits):
    module = linear(bits=bits)
    grid = Grid.of(module, mx.float32)
    dequantized = mx.dequantize(module.weight, module.scales, module.biases, group_size=32, bits=bits)
    assert grid.integers.max() == grid.highest
    assert np.abs(grid.weight() - np.array(dequantized)).max() < 1e-6
    assert mx.array_equal(pack(unpack(module.weight, bits), bits), module.weight)


def test_second_moments_are_those_of_the_inputs_in_one_pass_or_many(monkeypatch):
    model = tiny_model()
    batches = list(micro_batches(make_rows(4), 40, packed=False))
    widths = {"model.layers.0.self_attn.q_proj": 32, "model.layers.0.mlp.gate_proj": 32}
    once = dict(rounding.second_moments(model, output_head(model), widths, batches))
    monkeypatch.setattr(rounding, "MOMENT_BYTES", 1)
    again = dict(rounding.second_moments(model, output_head(model), widths, batches))
    expected = 0
    for batch in batches:
        x = np.array(model.layers[0].input_layernorm(model.model.embed_tokens(mx.array(batch.tokens))))
        x = x.reshape(-1, 32).astype(np.float64)
        expected = expected + x.T @ x
    found = once["model.layers.0.self_attn.q_proj"]
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    assert all(np.array_equal(once[path], again[path]) for path in widths)
    assert type(model.layers[0].self_attn.q_proj) is nn.Linear


def test_columns_are_rounded_as_gptq_defines_it():
    """The paper's equations 2 and 3: with the inverse of the columns that are left computed anew for each."""
    grid = Grid.of(linear(width=64), mx.float32)
    moment = moment_of(64, 8).astype(np.float64)
    moment[np.diag_indices(64)] += rounding.DAMPING * np.diag(moment).mean()
    target = grid.weight() + np.random.default_rng(2).normal(size=(6, 64)).astype(np.float32) * 0.05
    left, expected = target.astype(np.float64), np.empty((6, 64))
    for i in range(64):
        inverse, scale, bias = np.linalg.inv(moment[i:, i:]), grid.scales[:, i // 32], grid.biases[:, i // 32]
        expected[:, i] = np.clip(np.rint((left[:, i] - bias) / scale), 0, 15)
        error = left[:, i] - (expected[:, i] * scale + bias)
        left[:, i:] -= np.outer(error / inverse[0, 0], inverse[0])
    found = rounding._by_columns(target, grid, rounding._factor(moment))
    assert (found != expected).mean() < 0.02  # float32 beside float64, at a tie
    assert (grid.integers != expected).mean() > 0.1


def test_a_small_update_survives_in_what_the_layer_puts_out():
    """Far below half a step: rounding to the nearest erases it whole."""
    grid = Grid.of(linear(out=8, width=32), mx.float32)
    moment = moment_of(32, 3)
    update = 0.15 * np.abs(grid.scales).mean() * np.sign(np.random.default_rng(5).normal(size=(8, 32)))
    target = (grid.weight() + update).astype(np.float32)
    assert np.array_equal(nearest(target, grid), grid.integers)
    found = rounding.integers(target, grid, moment)

    def error(integers):
        difference = grid.weight(integers) - target
        return ((difference @ moment) * difference).sum(axis=1)

    kept, lost = error(found), error(grid.integers)
    assert (kept <= lost * 1.02).all()  # the rule is of the damped moment
    assert kept.sum() < 0.5 * lost.sum()


def test_without_an_update_or_without_correlation_the_integers_are_the_nearest():
    grid = Grid.of(linear(width=32), mx.float32)
    assert np.array_equal(rounding.integers(grid.weight(), grid, moment_of(32, 3)), grid.integers)
    target = grid.weight() + np.random.default_rng(2).normal(size=(6, 32)).astype(np.float32) * 0.3
    assert np.array_equal(rounding.integers(target, grid, np.eye(32, dtype=np.float32)), nearest(target, grid))


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_what_is_tuned_is_what_is_stored(dtype):
    module = linear(dtype=dtype)
    layer = Tuned(Grid.of(module, dtype), None)
    x = mx.random.normal((3, 64))
    expected = mx.quantized_matmul(
        x, module.weight, *(a.astype(mx.float32) for a in (module.scales, module.biases)), group_size=32, bits=4
    )
    assert mx.abs(layer(x) - expected).max() < 1e-4
    layer.scale_steps = 0.01 * mx.random.normal(layer.scale_steps.shape)
    layer.bias_steps = mx.random.normal(layer.bias_steps.shape)
    stored = layer.tuned().arrays()
    assert stored["scales"].dtype == stored["biases"].dtype == dtype
    assert mx.array_equal(stored["weight"], module.weight)
    weight = mx.dequantize(
        stored["weight"], *(stored[n].astype(mx.float32) for n in ("scales", "biases")), group_size=32, bits=4
    )
    assert mx.abs(layer(x) - x @ weight.T).max() < 1e-5


def test_gradients_pass_the_rounding_to_the_stored_type():
    layer = Tuned(Grid.of(linear(dtype=mx.bfloat16), mx.bfloat16), None)
    x = mx.random.normal((3, 64))
    gradient = nn.value_and_grad(layer, lambda x: layer(x).sum())(x)[1]
    grid = layer._grid
    of_groups = np.array(x.sum(axis=0)).reshape(2, 32)
    by_bias = np.abs(grid.scales) * of_groups.sum(axis=1)
    integers = grid.integers.reshape(6, 2, 32).astype(np.float32)
    standard = (integers - integers.mean(axis=2, keepdims=True)) / integers.std(axis=2, keepdims=True)
    by_scale = grid.scales * (standard * of_groups).sum(axis=2)
    assert np.abs(np.array(gradient["bias_steps"]) - by_bias).max() < 1e-3 * np.abs(by_bias).max()
    assert np.abs(np.array(gradient["scale_steps"]) - by_scale).max() < 1e-3 * np.abs(by_scale).max()


def test_a_step_of_scale_and_one_of_bias_move_weights_by_a_step_and_do_not_undo_each_other():
    layer = Tuned(Grid.of(linear(), mx.float32), None)
    before, moves = layer(mx.eye(64)), {}
    for name in ("scale_steps", "bias_steps"):
        layer[name] = layer[name] + 1
        moves[name] = np.array(layer(mx.eye(64)) - before).T.reshape(6, 2, 32)
        moves[name] /= np.abs(layer._grid.scales)[..., None]
        layer[name] = layer[name] - 1
        assert np.abs(np.sqrt(np.square(moves[name]).mean(axis=2)) - 1).max() < 1e-3
    assert np.abs((moves["scale_steps"] * moves["bias_steps"]).mean(axis=2)).max() < 1e-3


def test_a_group_of_one_integer_can_be_tuned():
    """Its spread is 0, and scale and bias are the same change."""
    module = linear()
    module.weight = mx.full(module.weight.shape, 0x55555555, mx.uint32)
    layer = Tuned(Grid.of(module, mx.float32), None)
    gradient = nn.value_and_grad(layer, lambda x: layer(x).sum())(mx.random.normal((3, 64)))[1]
    assert mx.isfinite(gradient["scale_steps"]).all() and mx.abs(gradient["bias_steps"]).min() > 0


def calibrated(run, count=24):
    """The run with samples: of training problems, and of one that it is measured on."""
    source = source_of(run)
    generation = Journal(next(source.files.evaluation.glob("*.jsonl")), Generation).read()[0]
    facts = generation.model_dump() | {"finish_reason": "stop"}
    tokens = np.random.default_rng(0).integers(4, 700, (count, 30)).tolist()
    samples = [
        Sample(**facts | {"problem_id": f"p{i}", "prompt_ids": [*PROMPT, i + 10], "completion_ids": ids})
        for i, ids in enumerate(tokens)
    ]
    source.files.samples.parent.mkdir(parents=True, exist_ok=True)
    write_records(source.files.samples, [*samples, Sample(**facts)])
    return source


@pytest.fixture
def source(run_dir):
    return calibrated(run_dir(bits=4, update=0.02))


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(distilling, "STEPS", 24)
    monkeypatch.setattr(distilling, "ROWS_PER_STEP", 4)


def kl(source, model):
    reference = reference_of(source)
    found = (MlxReader(model).logits(text) for text in reference.texts)
    return compare(reference.texts, found, reference.logits(STUDENT))["kl_mean"]


def fitted_model(source, arrays):
    model, _ = models.load(source.base, "float32")
    flat = [(f"{module}.{name}", array) for module, parts in arrays.items() for name, array in parts.items()]
    model.load_weights(flat, strict=False)
    return model


def test_the_update_survives_where_plain_rounding_loses_it(source, short, tmp_path):
    """On texts of other problems than it was fitted to; in the base's own bits, groups, types and shapes."""
    fused, _ = models.load(source.base, "float32", source.adapter)
    for path, module in list(fused.named_modules()):
        if hasattr(module, "fuse"):
            fused.update_modules(tree_unflatten([(path, module.fuse())]))
    reference = reference_of(source)
    arrays = fitted(source, silent)
    lost = compare(reference.texts, reference.logits(BASE), reference.logits(STUDENT))["kl_mean"]
    kept, plain = kl(source, fitted_model(source, arrays)), kl(source, fused)
    assert plain > 0.5 * lost  # verify's rule refuses it
    assert kept < plain / 3
    folder = tmp_path / "out"
    folder.mkdir()
    mlx.write(source, folder, "fitted", silent)
    facts = verify(source, mlx, "mlx", folder, "fitted", reference)
    assert facts["failures"] == []
    assert facts["kept"]["kl_exported"] == pytest.approx(kept, rel=1e-3)
    stored, written = (mx.load(str(path / "model.safetensors")) for path in (source.base.path, folder))
    assert {n: (a.shape, a.dtype) for n, a in written.items()} == {n: (a.shape, a.dtype) for n, a in stored.items()}
    adapted = {f"{path}.{name}" for path, parts in arrays.items() for name in parts}
    assert {name for name in stored if not mx.array_equal(stored[name], written[name])} <= adapted
    assert (folder / "config.json").read_text() == (source.base.path / "config.json").read_text()


def test_a_fit_is_deterministic_and_made_once(source, short, monkeypatch):
    monkeypatch.setattr(distilling, "STEPS", 2)
    first = quantizer.fit(source.base, source.adapter, calibration(source)[:8], silent)
    second = quantizer.fit(source.base, source.adapter, calibration(source)[:8], silent)
    assert all(mx.array_equal(a, b) for (_, a), (_, b) in zip(tree_flatten(first), tree_flatten(second), strict=True))
    monkeypatch.setattr(quantizer, "fit", lambda *given: first)
    fitted(source, silent)
    monkeypatch.setattr(quantizer, "fit", None)  # would fail if it were called
    again = fitted(source, silent)
    assert all(mx.array_equal(first[path][name], again[path][name]) for path in first for name in first[path])


def test_calibration_takes_one_sample_a_problem_and_none_that_is_measured(source):
    rows = calibration(source, count=6)
    assert len(rows) == 6
    assert len({row.problem_id for row in rows}) == 6 and {row.problem_id[0] for row in rows} == {"p"}


def test_what_has_no_grid_is_refused_in_one_sentence(source, tmp_path):
    rows = [Row("p", 0, [1, 2], [3])]
    with pytest.raises(BadInput, match="no text to calibrate on"):
        quantizer.fit(source.base, source.adapter, [], silent)
    with pytest.raises(BadInput, match="no linear layer with integers"):
        quantizer.fit(ModelSource(assets.model_path(), ""), source.adapter, rows, silent)
    full = tmp_path / "full"
    shutil.copytree(source.adapter, full)
    config = json.loads((full / "adapter_config.json").read_text()) | {"fine_tune_type": "full"}
    (full / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput):
        quantizer.fit(source.base, full, rows, silent)
